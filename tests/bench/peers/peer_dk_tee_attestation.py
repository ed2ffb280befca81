"""dk-tee-attestation over one SEV-SNP report, with what it would fetch from AMD given at once."""

from turns import take_turns  # isort: split

import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from dk_tee_attestation import amd_sev_snp_attestation_report_verification_utils as utils

folder = Path(sys.argv[1])
report, vek, ask, ark = ((folder / name).read_bytes() for name in ("report", "vek", "ask", "ark"))
chain = b"".join(x509.load_der_x509_certificate(each).public_bytes(Encoding.PEM) for each in (ask, ark))


class Answer:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def raise_for_status(self) -> None:
        pass


def get(url: str, timeout: float) -> Answer:
    return Answer(chain if url.endswith("cert_chain") else vek)


utils.requests.get = get
take_turns(lambda: utils.AmdSevSnpVerifier.verify_amd_sev_snp_attestation_report(report, report[0x50:0x90]))
