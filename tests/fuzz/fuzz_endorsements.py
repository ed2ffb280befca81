"""Fuzz what reads vendors' answers, kept documents and carried files: only EvidenceMalformed may come out."""

import time
from collections.abc import Callable

from confide_attestation.errors import AttestationError
from confide_attestation.evidence import Endorsements, SnpEndorsements, TdxEndorsements
from confide_attestation.nvidia.evidence import DeviceEvidence, NvidiaEndorsements
from confide_attestation.nvidia.ocsp import OcspAnswer
from confide_attestation.simulated.amd import SimulatedAmd
from confide_attestation.simulated.intel import SimulatedIntel
from confide_attestation.simulated.nvidia import SimulatedDevice, SimulatedVendor
from confide_endorsements import amd, azure, intel, nvidia
from confide_endorsements.archive import encode_archive, parse_archive
from confide_endorsements.documents import Kind, Name, document_end, endings
from confide_endorsements.http import Answer

from tests.fakes.vendors import Reply, Vendors

NOW = int(time.time())
NONCE = b"\x4e" * 32
AMD, INTEL, DEVICE = SimulatedAmd.make(NOW), SimulatedIntel.make(NOW), SimulatedDevice(SimulatedVendor(NOW))
CHIP, PLATFORM = amd.chip_of(AMD.sign_report(bytes(64))), intel.platform_of(INTEL.sign_quote(bytes(64)))
QUESTION = nvidia.Question(DEVICE.vendor.ica, DEVICE.vendor.identity)
RIM_ID = "NV_GPU_DRIVER_GH100_550.90.07"
KINDS = tuple(Kind)
INTELS = (Kind.INTEL_TCB_INFO, Kind.INTEL_QE_IDENTITY, Kind.INTEL_PCK_CRL, Kind.INTEL_ROOT_CRL)


def declared(read: Callable[[bytes], object]) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        try:
            read(data)
        except AttestationError:
            return

    return target


def document(data: bytes) -> None:
    if data:
        document_end(KINDS[data[0] % len(KINDS)], data[1:])


def answer(data: bytes) -> None:
    """The first byte says which service answered; for Intel the last line is the header field's value."""
    if not data:
        return
    which, body = data[0] % 8, data[1:]
    if which < 4:
        body, _, chain = body.rpartition(b"\n")
        names = ("tcb-info-issuer-chain", "sgx-enclave-identity-issuer-chain", "sgx-pck-crl-issuer-chain")
        fields = dict.fromkeys(names, chain.decode("latin-1"))
        intel.parts_of(PLATFORM, INTELS[which], Answer(fields, body))
    elif which == 4:
        nvidia.rim_of(RIM_ID, body)
    elif which == 5:
        nvidia.answer_of(QUESTION, NONCE, body)
    elif which == 6:
        amd.vcek_of(CHIP, body)
    else:
        azure.certificates_of(CHIP, body)


def evidence(data: bytes) -> None:
    """What is asked for follows from evidence, which is anybody's bytes."""
    if not data:
        return
    which, body = data[0] % 4, data[1:]
    if which == 0:
        amd.chip_of(azure.snp_report_of(body))
    elif which == 1:
        intel.platform_of(body)
    elif which == 2:
        nvidia.needs_of([DeviceEvidence(body, DEVICE.chain)])
    else:
        nvidia.needs_of([DeviceEvidence(DEVICE.report(NONCE), body)])


def ends(data: bytes) -> None:
    """Nothing at all may come out."""
    nvidias = NvidiaEndorsements((data,), (OcspAnswer(data),))
    endings(Endorsements(SnpEndorsements(data, data, data, data), TdxEndorsements(data), nvidias))


def seeds() -> dict[str, list[bytes]]:
    vendors = Vendors()
    vendors.serve_amd(AMD, NOW)
    vendors.serve_azure(AMD)
    vendors.serve_intel(INTEL)
    bodies = [route.body for route in vendors.routes.values() if isinstance(route, Reply)]
    chains = [next(iter(r.fields.values()), "") for r in vendors.routes.values() if isinstance(r, Reply)]
    vendors.close()
    ocsp = DEVICE.vendor.answer(QUESTION.subject, QUESTION.issuer, DEVICE.vendor.keys["identity"], nonce=NONCE).der
    intels = [bytes([n]) + bodies[4 + n] + b"\n" + chains[4 + n].encode() for n in range(4)]
    row = (Name(Kind.AMD_VCEK, "x", "https://kds.invalid/x"), AMD.vek, NOW)
    rim = DEVICE.rims[0]
    return {
        "endorsements_document": [
            b"\0" + AMD.vek, b"\1" + bodies[1], b"\2" + bodies[2], b"\7" + rim, b"\x08" + ocsp
        ],
        "endorsements_answer": [*intels, b"\5" + ocsp, b"\6" + AMD.vek, b"\7" + bodies[3]],
        "endorsements_evidence": [
            b"\0" + AMD.sign_report(bytes(64)),
            b"\1" + INTEL.sign_quote(bytes(64)),
            b"\2" + DEVICE.report(NONCE),
            b"\3" + DEVICE.chain,
        ],
        "endorsements_archive": [encode_archive([row])],
        "endorsements_endings": [AMD.vek, INTEL.collateral(), rim, ocsp],
    }  # fmt: skip


TARGETS: dict[str, Callable[[bytes], None]] = {
    "endorsements_document": declared(document),
    "endorsements_answer": declared(answer),
    "endorsements_evidence": declared(evidence),
    "endorsements_archive": declared(parse_archive),
    "endorsements_endings": ends,
}
