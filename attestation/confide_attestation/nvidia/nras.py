"""Judge the tokens of NVIDIA's Remote Attestation Service (NRAS) v3 and v4: a detached EAT bundle.

Source: NVIDIA's NRAS API and claims guides; RFC 9711 (detached EAT bundle), RFC 7519. What an accepted bundle shows
is that NVIDIA's service says so: nothing here sees the device's own evidence.
Does not check: whose keys the JWK set holds; keep the one that was fetched from NVIDIA with the tokens. Its keys
come with certificates (x5c) below "NVIDIA Attestation Service CA 001", a root that is neither among them nor known
here: what leads to no pinned key would show nothing, so they are not read.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from confide_protocol import labels
from cryptography.hazmat.primitives.asymmetric import ec

from confide_attestation.checks.ledger import Ledger
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.nvidia.ids import NRAS_CHECKS, NrasCheck
from confide_attestation.nvidia.jose import HEADER_FIELDS, Token, parse_jwks, parse_token
from confide_attestation.nvidia.spdm import NONCE_BYTES
from confide_attestation.nvidia.strict_json import parse_json
from confide_attestation.result import AttestationResult, Verdict

MAX_TOKENS_BYTES = 1 << 20
MAX_DEVICES = 64
ISSUER = "https://nras.attestation.nvidia.com"
SUBJECT = "NVIDIA-PLATFORM-ATTESTATION"
VERSIONS = ("2.0", "3.0")
MAX_LIFETIME_S = 24 * 3600
_ERROR = "x-nvidia-error-details"
_TRUE = ("attestation-report-parsed", "attestation-report-nonce-match", "attestation-report-signature-verified")
_RIM_TRUE = ("fetched", "schema-validated", "signature-verified", "measurements-available")


def verify_nras(tokens: bytes, jwks: bytes, *, now_unix_s: int, nonce: bytes) -> AttestationResult:
    """Judge a bundle that answers `nonce`, by the keys that NVIDIA published; AUTHENTIC if all holds.

    UNREADABLE means that an input is not a file of its kind. Raises: EvidenceMalformed if `nonce` is not 32 bytes.
    """
    if len(nonce) != NONCE_BYTES:
        raise EvidenceMalformed(f"judging needs a nonce of {NONCE_BYTES} bytes")
    ledger = Ledger()
    overall: Token | None = None
    devices: Mapping[str, Token] = {}
    keys: Mapping[str, ec.EllipticCurvePublicKey] | None = None
    try:
        overall, devices = parse_bundle(tokens)
        ledger.expect(NrasCheck.TOKENS_FORMAT, True, f"a detached EAT of {len(devices)} devices", "")
    except EvidenceMalformed as fault:
        ledger.fail(NrasCheck.TOKENS_FORMAT, str(fault))
    try:
        keys = parse_jwks(jwks)
        ledger.expect(NrasCheck.JWKS_FORMAT, True, f"{len(keys)} keys on P-384", "")
    except EvidenceMalformed as fault:
        ledger.fail(NrasCheck.JWKS_FORMAT, str(fault))
    claims: dict[str, dict[str, str | int | bool]] = {}
    if (
        overall is not None
        and keys is not None
        and _judge_signatures(ledger, {"overall": overall, **devices}, keys)
    ):
        _judge_claims(ledger, overall, devices, now_unix_s, nonce)
        claims = {
            "nras": flat(overall.claims),
            **{_group(name): flat(each.claims) for name, each in devices.items()},
        }
    unreadable = ledger.failed((NrasCheck.TOKENS_FORMAT, NrasCheck.JWKS_FORMAT))
    holds = ledger.passed(NRAS_CHECKS)
    return AttestationResult(
        verdict=Verdict.UNREADABLE if unreadable else Verdict.AUTHENTIC if holds else Verdict.REFUSED,
        checks=ledger.close(NRAS_CHECKS),
        claims=claims,
        simulated=False,
        policy_id=None,
        policy_digest=None,
        judged_at_unix_s=now_unix_s,
    )


def parse_bundle(data: bytes) -> tuple[Token, Mapping[str, Token]]:
    """Read `[["JWT", overall], {"GPU-0": token, …}]`. Raises: EvidenceMalformed. Does not check: any signature."""
    tree = parse_json(data, MAX_TOKENS_BYTES)
    if not isinstance(tree, list) or len(tree) != 2:
        raise EvidenceMalformed('expected NRAS tokens: [["JWT", overall], {"GPU-0": token, …}]')
    head, devices = tree
    if not isinstance(head, list) or len(head) != 2 or head[0] != "JWT" or not isinstance(head[1], str):
        raise EvidenceMalformed('expected NRAS tokens: [["JWT", overall], …]')
    if not isinstance(devices, dict) or not 1 <= len(devices) <= MAX_DEVICES:
        raise EvidenceMalformed(f"expected NRAS tokens of 1 to {MAX_DEVICES} devices")
    if not all(isinstance(each, str) and name.isascii() and name.isprintable() for name, each in devices.items()):
        raise EvidenceMalformed("expected NRAS tokens: a device's token is no text")
    return parse_token(head[1]), {name: parse_token(each) for name, each in devices.items()}


def _judge_signatures(
    ledger: Ledger, tokens: Mapping[str, Token], keys: Mapping[str, ec.EllipticCurvePublicKey]
) -> bool:
    """Judge header, algorithm, key and signature of every token, before any claim is looked at."""
    odd = [name for name, each in tokens.items() if set(each.header) - HEADER_FIELDS]
    other = [name for name, each in tokens.items() if each.header.get("alg") != "ES384"]
    kids = {name: each.header.get("kid") for name, each in tokens.items()}
    unknown = [name for name, kid in kids.items() if not isinstance(kid, str) or kid not in keys]
    one_key = len(set(map(str, kids.values()))) == 1
    for check_id, faults, passed, failed in (
        (NrasCheck.HEADER, odd, "alg, kid and typ alone", "a header holds more than alg, kid and typ"),
        (NrasCheck.ALG, other, "ES384", "another algorithm than ES384"),
        (NrasCheck.KID, unknown, "a key of the JWK set", "no such key in the JWK set"),
    ):
        ledger.expect(check_id, not faults, passed, f"{failed}: {', '.join(faults)}")
    if not ledger.passed((NrasCheck.HEADER, NrasCheck.ALG, NrasCheck.KID)):
        return False
    unsigned = [name for name, each in tokens.items() if not each.is_signed_by(keys[str(kids[name])])]
    mixed = "" if one_key else "tokens of one answer are signed by different keys"
    detail = "; ".join(filter(None, (f"not signed by its key: {', '.join(unsigned)}" if unsigned else "", mixed)))
    return ledger.expect(NrasCheck.SIG, not detail, f"{len(tokens)} tokens signed by one key", detail)


def _judge_claims(
    ledger: Ledger, overall: Token, devices: Mapping[str, Token], now_unix_s: int, nonce: bytes
) -> None:
    tokens = {"overall": overall, **devices}
    claims = {name: each.claims for name, each in tokens.items()}
    for check_id, faults, passed, failed in (
        (NrasCheck.ISSUER, _not(claims, "iss", ISSUER), ISSUER, f"not issued by {ISSUER}"),
        (
            NrasCheck.EXPIRED,
            [name for name, each in claims.items() if not _unexpired(each, now_unix_s)],
            "not expired",
            "expired, or without a sound exp and iat",
        ),
        (
            NrasCheck.NOT_BEFORE,
            [name for name, each in claims.items() if not _begun(each, now_unix_s)],
            "already valid",
            "not valid yet, or without nbf and iat",
        ),
        (NrasCheck.NONCE, _not(claims, "eat_nonce", nonce.hex()), "they answer our nonce", "not for our nonce"),
    ):
        ledger.expect(check_id, not faults, passed, f"{failed}: {', '.join(faults)}")
    version = overall.claims.get("x-nvidia-ver")
    ledger.expect(
        NrasCheck.VERSION,
        version in VERSIONS and overall.claims.get("sub") == SUBJECT,
        f"claims version {version}",
        f"the overall token is not of {SUBJECT} in version {' or '.join(VERSIONS)}",
    )
    digests = {
        name: ["DIGEST", ["SHA-256", hashlib.sha256(each.compact.encode()).hexdigest()]]
        for name, each in devices.items()
    }
    ledger.expect(
        NrasCheck.SUBMODS,
        overall.claims.get("submods") == digests,
        "the overall token names exactly these device tokens",
        "the overall token names other device tokens, or more, or fewer",
    )
    failed_at = [name for name, each in claims.items() if each.get(_ERROR) is not None]
    ledger.expect(
        NrasCheck.ERROR, not failed_at, "no error", f"the service reports an error: {', '.join(failed_at)}"
    )
    wrong = {name: faults for name, each in devices.items() if (faults := _device_faults(name, each.claims))}
    shown = "; ".join(f"{name}: {', '.join(faults)}" for name, faults in wrong.items())
    ledger.expect(NrasCheck.DEVICE_CLAIMS, not wrong, "measurements match, all claims hold", shown)
    ueids = [each.claims.get("ueid") for each in devices.values()]
    distinct = all(isinstance(each, str) for each in ueids) and len(set(map(str, ueids))) == len(ueids)
    ledger.expect(
        NrasCheck.DUPLICATE_DEVICE, distinct, "each device once", "a device is there twice, or without its ueid"
    )
    ledger.expect(
        NrasCheck.OVERALL,
        overall.claims.get("x-nvidia-overall-att-result") is True,
        "the overall result is true",
        "the overall result is not true",
    )


def _not(claims: Mapping[str, Mapping[str, Any]], name: str, value: str) -> list[str]:
    return [token for token, each in claims.items() if each.get(name) != value]


def _time(claims: Mapping[str, Any], name: str) -> int | None:
    value = claims.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _unexpired(claims: Mapping[str, Any], now_unix_s: int) -> bool:
    issued, expires = _time(claims, "iat"), _time(claims, "exp")
    return issued is not None and expires is not None and now_unix_s < expires <= issued + MAX_LIFETIME_S


def _begun(claims: Mapping[str, Any], now_unix_s: int) -> bool:
    starts = [_time(claims, name) for name in ("nbf", "iat")]
    return all(each is not None and each <= now_unix_s + labels.DATE_TOLERANCE_S for each in starts)


def _device_faults(name: str, claims: Mapping[str, Any]) -> list[str]:
    """Name the claims of a device that are absent or not as they must be: absent is false."""
    kind = "switch" if name.startswith("SWITCH-") else "gpu"
    prefix = f"x-nvidia-{kind}-"
    rims = ("bios",) if kind == "switch" else ("driver", "vbios")
    words = (("measres", "success"), ("dbgstat", "disabled"))
    faults = [each for each, value in words if claims.get(each) != value]
    needed = ["secboot", f"{prefix}arch-check", *(f"{prefix}{each}" for each in _TRUE)]
    needed += [f"{prefix}{rim}-rim-{each}" for rim in rims for each in _RIM_TRUE]
    needed += [f"{prefix}vbios-index-no-conflict"] if kind == "gpu" else []
    faults += [each for each in needed if claims.get(each) is not True]
    # What version 2.0 says in one boolean is an object in version 3.0.
    chains = [(f"{prefix}attestation-report-cert-chain", f"{prefix}attestation-report-cert-chain-validated")]
    chains += [(f"{prefix}{rim}-rim-cert-chain", f"{prefix}{rim}-rim-cert-validated") for rim in rims]
    faults += [new for new, old in chains if not _chain_holds(claims.get(new)) and claims.get(old) is not True]
    false = [each for each, value in claims.items() if each.startswith("x-nvidia-") and value is False]
    return list(dict.fromkeys(faults + false))


def _chain_holds(chain: Any) -> bool:  # noqa: ANN401 - parsed JSON
    return (
        isinstance(chain, dict)
        and chain.get("x-nvidia-cert-status") == "valid"
        and chain.get("x-nvidia-cert-ocsp-status") == "good"
    )


def _group(name: str) -> str:
    """Name a device as everywhere: GPU-0 is gpu0."""
    return name.lower().replace("-", "")


def flat(claims: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | bool]:
    """Flatten claims: members of objects by a dot, lists as JSON, nulls left out."""
    found: dict[str, str | int | bool] = {}
    for name, value in claims.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | float):
            found[prefix + name] = json.dumps(value)
        elif value is not None:
            found[prefix + name] = value
    return found
