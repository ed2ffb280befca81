"""cvm-attest over one SEV-SNP report, given what it would fetch from AMD. It compares no TCB and no chip."""

from turns import take_turns  # isort: split

import logging
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cvm_attest.models import AttestationEvidence, AttestStatus, TeeType
from cvm_attest.snp import verify as snp

logging.disable(logging.CRITICAL)
folder = Path(sys.argv[1])
report, vek, ask, ark = ((folder / name).read_bytes() for name in ("report", "vek", "ask", "ark"))
chain = b"".join(x509.load_der_x509_certificate(each).public_bytes(Encoding.PEM) for each in (ask, ark))
snp._fetch_cert_chain = lambda *_: chain
snp._fetch_vcek_cert = lambda *_: vek
evidence = AttestationEvidence(TeeType.SNP, report[0x50:0x90], report)


def judge() -> None:
    result = snp.verify_evidence(evidence)
    assert result.status is AttestStatus.PASS, result.errors
    assert result.report_signature_valid, result.warnings


take_turns(judge)
