"""AMD's extensions are read exactly or not at all."""

import warnings

import pytest
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.roots import amd
from confide_attestation.simulated.amd import SimulatedAmd
from confide_attestation.snp.abi import Product
from confide_attestation.snp.certificates import (
    is_signed_by,
    library_warnings_ignored,
    load_certificate,
    load_crl,
    parse_vek,
)
from confide_attestation.snp.chain import amd_roots
from cryptography import x509

from tests.fakes.scene import NOW, shared_keys
from tests.shared import shared_path


def vek(**fields: object) -> x509.Certificate:
    return load_certificate(SimulatedAmd.make(NOW, keys=shared_keys(), **fields).vek, "vek_format")


def test_levels_above_127_are_read() -> None:
    """A patch level of 219 is a DER INTEGER of two bytes."""
    assert parse_vek(vek(product="Milan")).tcb["ucode"] == 219


def test_stepping_is_not_part_of_the_product() -> None:
    """ "Milan-B0" is Milan."""
    assert parse_vek(vek(product="Milan", product_name="Milan-B0")).product == "Milan"


@pytest.mark.parametrize(
    "fields",
    [
        {"product_name": "milan", "product": "Milan"},
        {"product_name": ""},
        {"product_name": "Genoa\x00"},
        {"product_name": "Genoa-\x1b[2J"},
        {"tcb": {"bl": 1, "tee": 0, "snp": 1}},
        {"product": "Turin", "tcb": {"bl": 1, "tee": 0, "snp": 1, "ucode": 3}},
    ],
)
def test_extension_that_is_not_exact_is_malformed(fields: dict[str, object]) -> None:
    """Case, emptiness, trailing bytes and missing levels are all refused."""
    with pytest.raises(EvidenceMalformed) as caught:
        parse_vek(vek(**fields))
    assert caught.value.check == "vek_extensions"


def test_issuer_certificate_is_no_vek() -> None:
    """An RSA key or another name is refused as a VEK."""
    ask = load_certificate(SimulatedAmd.make(NOW, keys=shared_keys()).ask, "vek_format")
    with pytest.raises(EvidenceMalformed):
        parse_vek(ask)


@pytest.mark.parametrize("data", [b"", b"\x30\x00", b"\x30" * 20_000])
def test_bytes_that_are_no_certificate(data: bytes) -> None:
    """Certificates and lists are DER of a bounded size."""
    with pytest.raises(EvidenceMalformed):
        load_certificate(data, "ask_format")
    with pytest.raises(EvidenceMalformed):
        load_crl(data * 20)


def test_serial_zero_gives_no_warning() -> None:
    """`cryptography` warns of every VCEK's serial number; that warning, and no other, is kept from users."""
    data = shared_path("evidence", "snp", "genoa_v3_vcek_ms", "vek.der").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with library_warnings_ignored():
            assert x509.load_der_x509_certificate(data).serial_number == 0
            with pytest.raises(UserWarning, match="other"):
                warnings.warn("other", UserWarning, stacklevel=1)


def test_packaged_roots_are_the_published_ones() -> None:
    """The pinned fingerprints are those of roots/README.md."""
    prefixes = {product.value: digest.hex()[:16] for product, digest in amd_roots().ark_sha256.items()}
    assert prefixes == {"Milan": "69d063b45344d26a", "Genoa": "4c6598d19c18719c", "Turin": "1f084161a44bb6d9"}


@pytest.mark.parametrize("product", list(Product))
def test_packaged_certificates_are_signed_from_the_ark_on(product: Product) -> None:
    """The ARK by itself too, which no judgement of a chain under it repeats."""
    ark = x509.load_pem_x509_certificate(amd.ARK_PEM[product].encode())
    for pem in (amd.ARK_PEM, amd.ASK_PEM, amd.ASVK_PEM):
        assert is_signed_by(x509.load_pem_x509_certificate(pem[product].encode()), ark, 4096)
