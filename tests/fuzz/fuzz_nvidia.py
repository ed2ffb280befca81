"""Fuzz the readers of NVIDIA's evidence, manifests, answers and tokens, and both verifiers past their parsers."""

from collections.abc import Callable
from functools import cache

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import GpuEvidence
from confide_attestation.nvidia.certificates import split_pem
from confide_attestation.nvidia.evidence import DeviceEvidence, NvidiaEndorsements, parse_evidence
from confide_attestation.nvidia.ids import NVIDIA_CHECKS
from confide_attestation.nvidia.jose import parse_jwks
from confide_attestation.nvidia.judge_set import judge_gpus
from confide_attestation.nvidia.nras import parse_bundle, verify_nras
from confide_attestation.nvidia.ocsp import OcspAnswer, read_answer
from confide_attestation.nvidia.policy import GpuPolicy
from confide_attestation.nvidia.rim import judge_rim, looks_like_rim
from confide_attestation.nvidia.spdm import parse_spdm
from confide_attestation.nvidia.verify import verify_nvidia
from confide_attestation.policy import SimulatedRoots
from confide_attestation.result import Verdict
from confide_attestation.simulated.nvidia import SimulatedDevice, SimulatedVendor

from tests.fakes.nras import NONCE, NOW, Nras

WAIVED = {"waived": "any simulated device will do"}
POLICY = GpuPolicy.model_validate(
    {
        "gpus": 1,
        "switches": 0,
        "architectures": ["HOPPER"],
        "modes": ["SPT"],
        "min_driver": "550.90.07",
        "firmware": ["96.00.9F.00.01"],
        "ueids": WAIVED,
        "fwid": "required",
        "revocation": {"max_age_s": 86_400, "rim_hold": "refused"},
    }
)
Genuine = tuple[SimulatedDevice, DeviceEvidence, tuple[bytes, ...], tuple[OcspAnswer, ...]]


@cache
def genuine() -> Genuine:
    device = SimulatedDevice(SimulatedVendor(NOW))
    return device, device.evidence(NONCE), device.rims, device.answers()


@cache
def service() -> tuple[bytes, bytes]:
    nras = Nras()
    return nras.bundle(), nras.jwks


@cache
def pins() -> SimulatedRoots:
    roots = genuine()[0].vendor.roots
    return SimulatedRoots(
        amd_ark_sha256="none",
        intel_root_sha256="none",
        nvidia_device_root_spki_sha256=roots.device_spki_sha256.hex(),
        nvidia_rim_root_spki_sha256=roots.rim_spki_sha256.hex(),
    )


def _read(parse: Callable[[bytes], object]) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        try:
            parse(data)
        except EvidenceMalformed:
            return

    return target


def report(data: bytes) -> None:
    try:
        parsed = parse_spdm(data)
    except EvidenceMalformed:
        return
    assert parsed.signed + parsed.signature == data


def rim(data: bytes) -> None:
    """Nothing but what a genuine manifest says is read; white space outside of what is signed has no meaning."""
    own, _, rims, _ = genuine()
    looks_like_rim(data)
    root = own.vendor.roots.rim_spki_sha256
    assert judge_rim(data, root).rim in (None, *(judge_rim(each, root).rim for each in rims))


def device(data: bytes) -> None:
    """The input is one of report, chain, manifest and answer; the others are genuine. Nothing raises or passes."""
    if not data:
        return
    own, evidence, rims, answers = genuine()
    kind, body = data[0] % 4, data[1:]
    if kind == 0:
        evidence = DeviceEvidence(body, evidence.chain)
    elif kind == 1:
        evidence = DeviceEvidence(evidence.report, body)
    elif kind == 2:
        rims = (body, rims[1])
    else:
        answers = (OcspAnswer(body), *answers[1:])
    roots = own.vendor.roots
    given = NvidiaEndorsements(rims, answers)
    result = verify_nvidia([evidence], given, now_unix_s=NOW, nonce=NONCE, roots=roots)
    gpus = [GpuEvidence(own.arch.value, evidence.report, evidence.chain)]
    part = judge_gpus(gpus, given, POLICY, pins(), now_unix_s=NOW, nonce=NONCE)
    assert [check.id for check in part.checks] == list(NVIDIA_CHECKS)
    assert result.verdict is Verdict.AUTHENTIC or not part.holds
    if result.verdict is Verdict.AUTHENTIC and kind < 2:
        # White space around PEM blocks has no meaning.
        assert evidence.report == genuine()[1].report
        assert split_pem(evidence.chain) == split_pem(own.chain)


def nras(data: bytes) -> None:
    """The input is tokens or keys. Nothing raises, nothing but the genuine passes."""
    if not data:
        return
    tokens, jwks = service()
    given = (data[1:], jwks) if data[0] % 2 else (tokens, data[1:])
    result = verify_nras(*given, now_unix_s=NOW, nonce=NONCE)
    assert result.verdict is not Verdict.AUTHENTIC or parse_bundle(given[0]) == parse_bundle(tokens)


def seeds() -> dict[str, list[bytes]]:
    _, evidence, rims, answers = genuine()
    tokens, jwks = service()
    return {
        "nvidia_report": [evidence.report],
        "nvidia_evidence": [evidence.report, evidence.report.hex().encode()],
        "nvidia_rim": list(rims),
        "nvidia_ocsp": [answers[0].der],
        "nvidia_pem": [evidence.chain],
        "nvidia_device": [b"\0" + evidence.report, b"\1" + evidence.chain, b"\2" + rims[0], b"\3" + answers[0].der],
        "nras_bundle": [tokens],
        "nras_jwks": [jwks],
        "nras": [b"\1" + tokens, b"\0" + jwks],
    }


TARGETS: dict[str, Callable[[bytes], None]] = {
    "nvidia_report": report,
    "nvidia_evidence": _read(lambda data: parse_evidence(data, b"")),
    "nvidia_rim": rim,
    "nvidia_ocsp": _read(read_answer),
    "nvidia_pem": _read(split_pem),
    "nvidia_device": device,
    "nras_bundle": _read(parse_bundle),
    "nras_jwks": _read(parse_jwks),
    "nras": nras,
}
