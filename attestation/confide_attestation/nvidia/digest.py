"""Name the evidence of GPUs and switches in one digest (SPEC 4.1)."""

import hashlib
from collections.abc import Sequence

from confide_protocol import cbor, labels

from confide_attestation.evidence import GpuEvidence
from confide_attestation.nvidia.certificates import load_certificate, spki_sha256, split_pem
from confide_attestation.nvidia.spdm import parse_spdm


def gpu_evidence_digest(gpus: Sequence[GpuEvidence]) -> bytes:
    """Return SHA-256 over each device's signed bytes and leaf key, in order. Raises: EvidenceMalformed.

    Never over raw evidence: an ECDSA signature has two forms, and a chain can be written in many ways.
    """
    devices = [
        [
            hashlib.sha256(parse_spdm(gpu.report).signed).digest(),
            spki_sha256(load_certificate(split_pem(gpu.certificate_chain)[0])),
        ]
        for gpu in gpus
    ]
    return hashlib.sha256(cbor.encode({"purpose": labels.PURPOSE_GPU_EVIDENCE, "devices": devices})).digest()
