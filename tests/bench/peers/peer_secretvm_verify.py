"""secretvm-verify over one SEV-SNP report, given what it would fetch from AMD; it judges a list too."""

from turns import take_turns  # isort: split

import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from secretvm.verify import amd

folder = Path(sys.argv[1])
report, vek, ask, ark, crl = ((folder / name).read_bytes() for name in ("report", "vek", "ask", "ark", "crl"))
product = (folder / "product").read_text()
chain = b"".join(x509.load_der_x509_certificate(each).public_bytes(Encoding.PEM) for each in (ask, ark))
amd._amd_fetch_vcek = lambda *_, **__: (x509.load_der_x509_certificate(vek), vek, product)
amd._amd_fetch_chain_pem = lambda *_, **__: chain
amd._amd_fetch_crl = lambda *_, **__: crl


def judge() -> None:
    result = amd.check_sev_cpu_attestation(report.hex(), product)
    assert result.valid, result.errors


take_turns(judge)
