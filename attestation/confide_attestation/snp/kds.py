"""Say where AMD publishes the certificate of a report's signer; makes no trust claim.

Source: AMD 57230, VCEK Certificate and KDS Interface.
"""

from collections.abc import Mapping

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.snp.abi import (
    SIGNING_KEYS,
    TCB_LAYOUT,
    Product,
    Signer,
    SnpReport,
    decode_tcb,
    product_of_cpuid,
)

KDS = "https://kdsintf.amd.com"


def vek_urls(report: SnpReport) -> tuple[str, ...]:
    """Return the address of the VCEK; two where a report of version 2 does not say which product it is.

    Raises: EvidenceMalformed where AMD has none for it. Does not check: that the report is authentic.
    """
    if SIGNING_KEYS.get(report.signing_key) is not Signer.VCEK:
        raise EvidenceMalformed("a VLEK signed it: the cloud hands that certificate out with the report")
    if not any(report.chip_id):
        raise EvidenceMalformed("the report does not name its chip")
    products: tuple[Product | None, ...] = (Product.MILAN, Product.GENOA)
    if report.cpuid is not None:
        products = (product_of_cpuid(report.cpuid),)
    if None in products:
        raise EvidenceMalformed("the report is of a processor that is not known here")
    return tuple(_url(report, product) for product in products if product is not None)


def vek_path(product: Product, chip_id: bytes, tcb: Mapping[str, int]) -> str:
    """Return what names a VCEK behind `/vcek/v1/`: product, chip (8 bytes on Turin, 64 else) and its TCB."""
    hwid = chip_id[:8] if product is Product.TURIN else chip_id
    levels = "&".join(f"{part}SPL={tcb[part]}" for part in TCB_LAYOUT[product])
    return f"{product}/{hwid.hex()}?{levels}"


def _url(report: SnpReport, product: Product) -> str:
    return f"{KDS}/vcek/v1/{vek_path(product, report.chip_id, decode_tcb(report.reported_tcb, product))}"
