"""Judge Tinfoil's document: the CPU's evidence by its own verifier, then the keys that it binds.

The argument: (1) AMD's or Intel's documents vouch for the evidence; (2) its report data are the two keys themselves
(version 2), or the digest of nonce, keys and device evidence (version 3); (3) GPUs answered the same nonce.
What this cannot show: Tinfoil's own reference values and witnesses, which Sigstore signs; a keyset of ours.
"""

import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import SnpEndorsements
from confide_attestation.foreign.ids import TINFOIL_CHECKS, ForeignCheck
from confide_attestation.foreign.outcome import Findings, conclude, judge_devices
from confide_attestation.foreign.tinfoil import REPORT_DATA_V1, Challenge, TinfoilDocument
from confide_attestation.nvidia.chain import NvidiaRoots
from confide_attestation.nvidia.evidence import NvidiaEndorsements
from confide_attestation.result import AttestationResult
from confide_attestation.snp.judge import verify_snp
from confide_attestation.tdx.judge import verify_tdx

TINFOIL_LIMITS = (
    "a keyset of Confide's: what the hardware vouches for is the provider's own TLS and HPKE keys",
    "that the measured software is the one that Tinfoil released: its Sigstore bundles were not read",
    "that the GPUs are in this machine: they answered the same nonce, and may be anybody's",
)


def verify_tinfoil(
    document: TinfoilDocument,
    nvidia: NvidiaEndorsements,
    *,
    now_unix_s: int,
    snp: SnpEndorsements | None = None,
    collateral_json: bytes | None = None,
    nonce: bytes | None = None,
    tls_fingerprint: bytes | None = None,
    judge_gpus: bool = True,
    root_der: bytes | None = None,
    roots: NvidiaRoots | None = None,
) -> AttestationResult:
    """Judge one document; AUTHENTIC at best, never a keyset. A part that is missing is a failure.

    `snp` and `collateral_json` stand for those in the document. `nonce` is the caller's own: without it freshness
    is not judged. `tls_fingerprint` is the SHA-256 of the connection's key (DER), as the caller saw it.
    """
    found = Findings()
    if document.platform == "sev-snp":
        endorsements = snp or snp_endorsements(document) or SnpEndorsements(vek=b"")
        cpu = verify_snp(document.evidence, endorsements, now_unix_s=now_unix_s)
    else:
        collateral = collateral_json or document.collateral_json or b""
        cpu = verify_tdx(document.evidence, collateral, now_unix_s=now_unix_s, root_der=root_der)
    challenge = document.challenge
    version = 2 if challenge is None else 3
    found.expect(ForeignCheck.REPORT_FORMAT, True, f"Tinfoil's document, version {version}", "")
    report_data = bytes.fromhex(str(cpu.claims.get("cpu0", {}).get("report_data", "")))
    tls_key, hpke_key = document.tls_fingerprint, document.hpke_key
    parts = [cpu]
    if challenge is None:
        _check_version_2(found, nonce, report_data)
        tls_key, hpke_key = report_data[:32], report_data[32:]
    else:
        _check_version_3(found, document, challenge, nonce, report_data)
        parts += _judge_devices(found, document, challenge, nvidia, judge_gpus, now_unix_s, roots)
    provider: dict[str, str | int | bool] = {}
    if found.passed((ForeignCheck.REPORT_DATA,)):
        _check_keys(found, document, tls_key, hpke_key, tls_fingerprint)
        provider = {
            name: key.hex()
            for name, key in (("tls_fingerprint", tls_key), ("hpke_key", hpke_key))
            if key is not None
        }
    return conclude(found, TINFOIL_CHECKS, parts, provider, now_unix_s=now_unix_s)


def snp_endorsements(document: TinfoilDocument) -> SnpEndorsements | None:
    """Return AMD's certificates that came with a document, None if its own is not among them."""
    if document.vek is None:
        return None
    issuers = document.issuers
    return SnpEndorsements(
        vek=document.vek,
        ask=issuers[0] if issuers else None,
        ark=issuers[1] if len(issuers) > 1 else None,
        crl=document.crl,
    )


def _check_version_2(found: Findings, nonce: bytes | None, report_data: bytes) -> None:
    no_challenge = "version 2 answers no nonce: it may be as old as the enclave"
    if nonce is None:
        found.leave(ForeignCheck.CHALLENGE, no_challenge)
    else:
        found.fail(ForeignCheck.CHALLENGE, no_challenge)
    found.leave(ForeignCheck.SECTION_HASHES, "version 2 has no sections")
    found.leave(ForeignCheck.DEVICE_EVIDENCE, "version 2 shows no GPU: NOTHING was judged of them")
    if report_data:
        found.expect(
            ForeignCheck.REPORT_DATA,
            any(report_data[:32]),
            "the report data are the keys themselves",
            "the report data hold no TLS key",
        )


def _check_version_3(
    found: Findings, document: TinfoilDocument, challenge: Challenge, nonce: bytes | None, report_data: bytes
) -> None:
    if nonce is None:
        found.leave(ForeignCheck.CHALLENGE, "no nonce was given: freshness was NOT judged")
    else:
        found.expect(
            ForeignCheck.CHALLENGE,
            challenge.nonce == nonce,
            "the document answers the nonce that was asked",
            "the document answers another nonce than the one that was asked",
        )
    crypto, device = (
        hashlib.sha256(each).digest() for each in (document.crypto_material, document.device_evidence)
    )
    found.expect(
        ForeignCheck.SECTION_HASHES,
        (challenge.crypto_hash, challenge.device_hash) == (crypto, device),
        "keys and device evidence have the hashes that are stated",
        "keys or device evidence have another hash than is stated",
    )
    if report_data:
        bound = (
            hashlib.sha256(REPORT_DATA_V1.encode() + challenge.nonce + crypto + device).digest().ljust(64, b"\0")
        )
        found.expect(
            ForeignCheck.REPORT_DATA,
            report_data == bound == challenge.report_data,
            "the report data are the digest of nonce, keys and device evidence",
            "the report data are not the digest of this nonce, these keys and this device evidence",
        )


def _judge_devices(
    found: Findings,
    document: TinfoilDocument,
    challenge: Challenge,
    nvidia: NvidiaEndorsements,
    judge_gpus: bool,
    now_unix_s: int,
    roots: NvidiaRoots | None,
) -> list[AttestationResult]:
    if document.devices is None or not judge_gpus:
        why = "there are none in it" if document.devices is None else "the caller asked for that"
        found.leave(ForeignCheck.DEVICE_EVIDENCE, f"devices were NOT judged: {why}")
        return []
    try:
        devices = judge_devices(document.devices, nvidia, challenge.nonce, now_unix_s=now_unix_s, roots=roots)
    except EvidenceMalformed as fault:
        found.fail(ForeignCheck.DEVICE_EVIDENCE, str(fault))
        return []
    if document.other_devices:
        names = ", ".join(document.other_devices)
        found.leave(ForeignCheck.DEVICE_EVIDENCE, f"of a form that is not known here, NOT judged: {names}")
    else:
        found.expect(ForeignCheck.DEVICE_EVIDENCE, True, "all devices in it were judged", "")
    return [devices]


def _check_keys(
    found: Findings,
    document: TinfoilDocument,
    tls_key: bytes | None,
    hpke_key: bytes | None,
    tls_fingerprint: bytes | None,
) -> None:
    found.expect(
        ForeignCheck.HPKE_KEY,
        hpke_key is not None and any(hpke_key),
        "an HPKE key is bound",
        "no HPKE key is bound: bodies cannot be sealed to the enclave",
    )
    own = None if document.enclave_cert is None else _fingerprint(document.enclave_cert)
    if tls_key is None:
        found.fail(ForeignCheck.TLS_KEY, "no TLS key is bound")
    elif document.enclave_cert is not None and own is None:
        found.fail(ForeignCheck.TLS_KEY, "enclaveCert is no certificate that can be read")
    elif own is not None and own != tls_key:
        found.fail(ForeignCheck.TLS_KEY, "the TLS key is another than that of the document's certificate")
    elif tls_fingerprint is None:
        certificate = "" if own is None else "the certificate in the document has the bound key; "
        found.leave(ForeignCheck.TLS_KEY, f"{certificate}no connection was compared")
    else:
        found.expect(
            ForeignCheck.TLS_KEY,
            tls_key == tls_fingerprint,
            "the TLS key is the one that was seen",
            "the TLS key is another than the one that was seen",
        )


def _fingerprint(der: bytes) -> bytes | None:
    try:
        key = x509.load_der_x509_certificate(der).public_key()
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        return None
    return hashlib.sha256(spki).digest()
