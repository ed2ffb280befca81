"""Accepted evidence of simulated GPUs and switches, and of the service that judges them, in the real formats."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from confide_attestation.nvidia.device import Arch
from confide_attestation.nvidia.spdm import Opaque
from confide_attestation.policy import SimulatedRoots
from confide_attestation.simulated.nvidia import SimulatedDevice, SimulatedVendor, pem
from cryptography import x509

from tests.conformance import Case, Mutation, checks, judges
from tests.conformance.parts import P384, make, malleable
from tests.fakes.nras import NONCE as NRAS_NONCE
from tests.fakes.nras import NOW, Nras, device_claims

DAY_S = 86_400
NONCE = b"a fresh nonce of this verifier.."


def device(arch: Arch) -> Case:
    vendor = SimulatedVendor(NOW)
    own = SimulatedDevice(vendor, arch)
    other = SimulatedDevice(vendor, arch, pdi=b"\x11" * 8)
    files = {"report0": own.report(NONCE), "chain0": own.chain}
    files |= {f"rim{number}": data for number, data in enumerate(own.rims)}
    files |= {f"ocsp{number}": answer.der for number, answer in enumerate(own.answers())}
    chain_keys = ("ica", "identity", "root")
    pairs = zip(own.certificates[1:], own.certificates[2:], chain_keys, strict=False)
    old = [vendor.answer(s, i, vendor.keys[by], window=(NOW - 2 * DAY_S, NOW - DAY_S)).der for s, i, by in pairs]
    more = [
        malleable("report0", files["report0"], len(files["report0"]) - 48, 48, P384),
        Mutation("older", "report0 with a former nonce", {"report0": own.report(b"\1" * 32)}, checks("gpu_nonce")),
        Mutation("swap", "chain0 of another device", {"chain0": other.chain}, checks("gpu_report_sig")),
        Mutation("swap", "report0 of another device", {"report0": other.report(NONCE)}, checks("gpu_report_sig")),
        Mutation(
            "repeat", "device", {"report1": files["report0"], "chain1": files["chain0"]}, checks("duplicate_device")
        ),
        *(
            Mutation("older", f"ocsp{number}", {f"ocsp{number}": der}, checks("device_chain_ocsp_expired"))
            for number, der in enumerate(old)
        ),
        *_chains(own.certificates),
        *_older_rims(own),
    ]
    if arch is not Arch.LS10:
        unnamed = own.report(NONCE, opaque={Opaque.FWID: None})
        foreign = own.report(NONCE, opaque={Opaque.FWID: b"\1" * 48})
        more += [
            Mutation("omit", "report0.fwid", {"report0": unnamed}, checks("fwid")),
            Mutation("swap", "report0.fwid, signed", {"report0": foreign}, checks("fwid")),
            Mutation(
                "omit",
                "report0.nvdec0, signed",
                {"report0": own.report(NONCE, opaque={Opaque.NVDEC0_STATUS: None})},
                checks("nvdec0_status"),
            ),
        ]
    for index in (1, 9, 21):
        changed = own.report(NONCE, measured={index: b"\1" * 48})
        more.append(
            Mutation("swap", f"report0.block{index}, signed", {"report0": changed}, checks("gpu_measurements"))
        )
    return make(
        f"nvidia/simulated_{arch.lower()}",
        "nvidia",
        files,
        judges.nvidia(nvidia_roots(vendor)),
        NOW,
        nonce=NONCE,
        more=more,
        roots={"root": pem([vendor.root]), "rim_root": pem([vendor.rim_chain[-1]])},
    )


def _chains(chain: Sequence[x509.Certificate]) -> Iterator[Mutation]:
    """Each certificate of a device's chain left out, repeated, or changed for the next one."""
    for number in range(len(chain)):
        fewer, more = [*chain[:number], *chain[number + 1 :]], [*chain[:number], chain[number], *chain[number:]]
        yield Mutation("omit", f"chain0.{number}", {"chain0": pem(fewer)}, checks("device_chain_length"))
        yield Mutation("repeat", f"chain0.{number}", {"chain0": pem(more)}, checks("device_chain_length"))
        if number:
            swapped = list(chain)
            swapped[number - 1], swapped[number] = swapped[number], swapped[number - 1]
            yield Mutation("reorder", f"chain0.{number}", {"chain0": pem(swapped)}, checks("device_chain_roles"))


def _older_rims(own: SimulatedDevice) -> Iterator[Mutation]:
    """Manifests of former versions, and of this one under a signer that has ended."""
    vendor = own.vendor
    former = SimulatedDevice(vendor, own.arch, driver="550.54.14", bios="96.10.53.00.01")
    signer = vendor.issue(
        "HCC RIM L4 Signer",
        "rim_l4",
        vendor.rim_chain[1],
        by="rim_l3",
        authority=False,
        window=(NOW - 60 * DAY_S, NOW - 30 * DAY_S),
    )
    ended = SimulatedVendor(NOW, vendor.keys)
    ended.__dict__["rim_chain"] = (signer, *vendor.rim_chain[1:])
    versions = checks("driver_rim_version", "firmware_rim_version")
    yield Mutation("older", "rim0", {"rim0": former.rims[0]}, versions)
    for number, data in enumerate(SimulatedDevice(ended, own.arch).rims):
        yield Mutation("older", f"rim{number} of an ended signer", {f"rim{number}": data}, checks("rim_validity"))
    first = own.rims[0]
    named = checks("rim_format", "rim_chain", "rim_schema")
    for start, end in (
        (b"<ds:SignatureValue>", b"</ds:SignatureValue>"),
        (b"<ds:Signature ", b"</ds:Signature>"),
        (b"<ds:X509Certificate>", b"</ds:X509Certificate>"),
    ):
        at = first.index(start)
        fewer = first[:at] + first[first.index(end, at) + len(end) :]
        yield Mutation("omit", f"rim0.{start[1:].decode().strip(' >')}", {"rim0": fewer}, named)


def nvidia_roots(vendor: SimulatedVendor) -> SimulatedRoots:
    return judges.only(
        nvidia_device_root_spki_sha256=vendor.roots.device_spki_sha256.hex(),
        nvidia_rim_root_spki_sha256=vendor.roots.rim_spki_sha256.hex(),
    )


def nras(kind: str, claims_version: str) -> Case:
    service = Nras()
    name = f"{kind.upper()}-0"

    def answer(claims: Mapping[str, Any] | None = None, **replaced: Any) -> bytes:
        own = {**device_claims(kind, version=claims_version), **(claims or {})}
        return service.bundle({name: own}, **{"x-nvidia-ver": claims_version, **replaced})

    two = {f"{kind.upper()}-{n}": device_claims(kind, ueid=str(n), version=claims_version) for n in range(2)}
    files = {"tokens": answer(), "jwks": service.jwks}
    tree, other = json.loads(files["tokens"]), json.loads(service.bundle(two, **{"x-nvidia-ver": claims_version}))
    extra = json.dumps([tree[0], {**tree[1], f"{kind.upper()}-1": other[1][f"{kind.upper()}-1"]}]).encode()
    past = {"iat": NOW - 2 * DAY_S, "nbf": NOW - 2 * DAY_S, "exp": NOW - DAY_S}
    more = [
        Mutation("older", "tokens", {"tokens": answer(past, **past)}, checks("nras_expired")),
        Mutation(
            "older", "tokens with a former nonce", {"tokens": answer(eat_nonce="00" * 32)}, checks("nras_nonce")
        ),
        Mutation(
            "swap",
            "tokens of devices",
            {"tokens": json.dumps([tree[0], other[1]]).encode()},
            checks("nras_submods"),
        ),
        Mutation(
            "swap", "overall token", {"tokens": json.dumps([other[0], tree[1]]).encode()}, checks("nras_submods")
        ),
        Mutation("repeat", "device", {"tokens": extra}, checks("nras_submods")),
        *(
            Mutation(
                "omit", f"claim {claim}, signed", {"tokens": answer({claim: None})}, checks("nras_device_claims")
            )
            for claim in device_claims(kind, version=claims_version)
            if claim not in ("iss", "eat_nonce", "iat", "nbf", "exp", "ueid")
            and not (kind == "switch" and "index" in claim)
        ),
    ]
    return make(
        f"nras/simulated_{kind}_v{claims_version[0]}", "nras", files, judges.nras, NOW, nonce=NRAS_NONCE, more=more
    )
