"""Fuzz what an enclave reads from its devices: a host's certificate table, a TPM's answers."""

from collections.abc import Callable
from pathlib import Path

from confide_attestation.evidence import CpuKind
from confide_attestation.simulated.azure import SimulatedAzure, make_ak
from confide_attestation.simulated.intel import SimulatedIntel
from confide_attestation.vtpm.azure import TdxPlatform
from confide_enclave.collect.azure import collect_azure
from confide_enclave.collect.certificates import parse_certificate_table
from confide_enclave.collect.tpm import Tpm
from confide_enclave.errors import DeviceUnavailable

from tests.unit.enclave.collect.kernel import ARK, ASK, VCEK, table
from tests.unit.enclave.collect.vtpm import NV_READ, NV_READ_PUBLIC, PCR_READ, QUOTE, Vtpm

NONCE = bytes(32)
AZURE = SimulatedAzure(SimulatedIntel.make(1_790_000_000), make_ak())
HCL, PLATFORM = AZURE.machine()
COMMANDS = (NV_READ_PUBLIC, NV_READ, QUOTE, PCR_READ)


def certificates(data: bytes) -> None:
    try:
        found = parse_certificate_table(data)
    except DeviceUnavailable:
        return
    assert found is None or found.vek in data


def tpm(data: bytes) -> None:
    """The input is a TPM's answer to one of its commands; what is collected is over our nonce, or nothing."""
    if not data:
        return
    assert isinstance(PLATFORM, TdxPlatform)
    quote = PLATFORM.quote
    vtpm = Vtpm(AZURE, HCL, {COMMANDS[data[0] % 4]: lambda _: data[1:]})
    try:
        cpu = collect_azure(NONCE, CpuKind.AZURE_TDX, Tpm(vtpm, Path("/dev/tpmrm0")), lambda _: quote)
    except DeviceUnavailable:
        return
    assert cpu.vtpm is not None
    assert NONCE in cpu.vtpm.quote


def seeds() -> dict[str, list[bytes]]:
    """Offer one genuine answer of each kind."""
    answers: dict[int, bytes] = {}

    def keep(code: int) -> Callable[[bytes], bytes]:
        return lambda answer: answers.setdefault(code, answer)

    vtpm = Vtpm(AZURE, HCL[:512])
    vtpm.bends = {code: keep(code) for code in COMMANDS}
    whole = Tpm(vtpm, Path("/dev/tpmrm0"))
    whole.read_nv(0x0140_0001)
    whole.quote(0x8100_0003, NONCE)
    vtpm.pcrs_at_once = 24
    whole.read_pcrs()
    return {
        "collect_certificates": [table((VCEK, b"v"), (ASK, b"a"), (ARK, b"r"))],
        "collect_tpm": [bytes([number]) + answers[code] for number, code in enumerate(COMMANDS)],
    }


TARGETS: dict[str, Callable[[bytes], None]] = {"collect_certificates": certificates, "collect_tpm": tpm}
