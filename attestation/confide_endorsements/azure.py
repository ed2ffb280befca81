"""Azure's Trusted Hardware Identity Management (THIM), which a confidential machine asks at its metadata address.

Source: Microsoft, "Trusted Hardware Identity Management", "How do I request collateral in a confidential virtual
machine?". For Intel's documents Azure's cache answers like the PCS: give its address as the PCS's.
"""

from typing import Final

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.pem import pem_blocks, pem_or_der
from confide_attestation.strict_json import load_json
from confide_attestation.vtpm.hcl import MAGIC, Tee, parse_hcl

from confide_endorsements.amd import Chip, vcek_of
from confide_endorsements.http import Http

METADATA: Final = "http://169.254.169.254"
PATH: Final = "/metadata/THIM/amd/certification"


def snp_report_of(data: bytes) -> bytes:
    """Return the SEV-SNP report in an HCL report; any other bytes as they are. Raises: EvidenceMalformed."""
    if not data.startswith(MAGIC):
        return data
    hcl = parse_hcl(data)
    if hcl.tee is not Tee.SNP:
        raise EvidenceMalformed("an HCL report of a TDX machine; give its quote")
    return hcl.hardware


async def fetch_certificates(http: Http, chip: Chip, metadata: str = METADATA) -> tuple[bytes, bytes]:
    """Fetch this machine's VCEK as DER, and ASK and ARK as PEM. Raises: EvidenceMalformed."""
    title = "this machine's certificate (THIM)"
    answer = await http.get(metadata + PATH, title, {"metadata": "true"})
    return certificates_of(chip, answer.body)


def certificates_of(chip: Chip, body: bytes) -> tuple[bytes, bytes]:
    """Read the service's answer. Raises: EvidenceMalformed. Does not check: any signature."""
    tree = load_json(body, "format")
    vcek, chain = (tree.get(name) if isinstance(tree, dict) else None for name in ("vcekCert", "certificateChain"))
    if not isinstance(vcek, str) or not isinstance(chain, str):
        raise EvidenceMalformed("expected vcekCert and certificateChain")
    pem_blocks(chain.encode(), "CERTIFICATE", (2,))
    return vcek_of(chip, pem_or_der(vcek.encode(), "CERTIFICATE")), chain.encode()
