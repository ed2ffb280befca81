"""AMD's Key Distribution Service (KDS): a chip's VCEK, the chain above it, the revocation list.

Source: AMD 57230 (VCEK Certificate and KDS Interface Specification), chapter 4. It answers for one VCEK in 10 s to
an address, else 429.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from confide_attestation.errors import EndorsementsUnavailable, EvidenceMalformed
from confide_attestation.pem import pem_blocks, pem_or_der
from confide_attestation.snp.abi import (
    SIGNING_KEYS,
    Product,
    Signer,
    decode_tcb,
    parse_report,
    product_of_cpuid,
)
from confide_attestation.snp.certificates import library_warnings_ignored, load_certificate, load_crl, parse_vek
from confide_attestation.snp.kds import KDS, vek_path

from confide_endorsements.documents import Kind, Name
from confide_endorsements.http import Http

VCEK_SPACING_S = 10
_HWID_BYTES = {Product.MILAN: 64, Product.GENOA: 64, Product.TURIN: 8}


@dataclass(frozen=True)
class Chip:
    """What names a VCEK: the product, the chip and its reported TCB."""

    product: Product
    hwid: bytes
    tcb: Mapping[str, int]

    def name(self, kds: str = KDS) -> Name:
        path = vek_path(self.product, self.hwid, self.tcb)
        return Name(Kind.AMD_VCEK, path, f"{kds}/vcek/v1/{path}")


def chip_of(report: bytes, product: Product | None = None) -> Chip:
    """Read from a report whose VCEK signed it; reports of version 2 do not name their `product`.

    Raises: EvidenceMalformed; EndorsementsUnavailable if the KDS has no certificate for it. Judges nothing.
    """
    parsed = parse_report(report)
    named = product if parsed.cpuid is None else product_of_cpuid(parsed.cpuid)
    if named is None:
        known = f"a report of version {parsed.version} does not name a known product"
        raise EvidenceMalformed(f"{known}; say which with --product: {', '.join(Product)}")
    if SIGNING_KEYS.get(parsed.signing_key) is not Signer.VCEK:
        because = (
            "AMD gives it only to its cloud; the machine's own certificate table holds it: give it with --vlek"
        )
        raise EndorsementsUnavailable("the VLEK", f"{KDS}/vlek/v1/{named}/cert_chain", because)
    size = _HWID_BYTES[named]
    if not any(parsed.chip_id):
        raise EvidenceMalformed("the report hides its chip id, so that nobody can name its certificate")
    return Chip(named, parsed.chip_id[:size], decode_tcb(parsed.reported_tcb, named))


@library_warnings_ignored()
def vlek_product(der: bytes) -> Product:
    """Return the product that a VLEK is for. Raises: EvidenceMalformed if it is none. Judges nothing."""
    vek = parse_vek(load_certificate(der, "vek_format"))
    if vek.signer is not Signer.VLEK:
        raise EvidenceMalformed("expected a VLEK, found a VCEK")
    return vek.product


def chain_name(product: Product, kds: str = KDS, signer: Signer = Signer.VCEK) -> Name:
    room = signer.lower()
    return Name(Kind.AMD_CERT_CHAIN, f"{product}/{room}", f"{kds}/{room}/v1/{product}/cert_chain")


def crl_name(product: Product, kds: str = KDS, signer: Signer = Signer.VCEK) -> Name:
    room = signer.lower()
    return Name(Kind.AMD_CRL, f"{product}/{room}", f"{kds}/{room}/v1/{product}/crl")


async def fetch_vcek(http: Http, chip: Chip, name: Name) -> bytes:
    """Fetch the certificate as DER, and see that it is of this chip and TCB."""
    der = (await http.get(name.url, name.title, spacing_s=VCEK_SPACING_S)).body
    return vcek_of(chip, der)


@library_warnings_ignored()
def vcek_of(chip: Chip, der: bytes) -> bytes:
    """Return the certificate if it is of this chip. Raises: EvidenceMalformed. Does not check: its signature."""
    vek = parse_vek(load_certificate(der, "vek_format"))
    if vek.signer is not Signer.VCEK or (vek.product, vek.hwid, vek.tcb) != (chip.product, chip.hwid, chip.tcb):
        raise EvidenceMalformed("a certificate of another chip, or of other firmware")
    return der


async def fetch_chain(http: Http, name: Name) -> bytes:
    """Fetch ASK and ARK as PEM, in this order."""
    return (await http.get(name.url, name.title)).body


async def fetch_crl(http: Http, name: Name) -> bytes:
    """Fetch the list as DER."""
    der = pem_or_der((await http.get(name.url, name.title)).body, "X509 CRL")
    load_crl(der)
    return der


def split_chain(pem: bytes) -> tuple[bytes, bytes]:
    """Return ASK and ARK as DER. Raises: EvidenceMalformed."""
    ask, ark = pem_blocks(pem, "CERTIFICATE", (2,))
    return ask, ark
