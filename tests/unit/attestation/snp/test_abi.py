"""Layouts that changed between products and versions."""

import pytest
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.snp.abi import Product, decode_tcb, parse_report, product_of_cpuid, tcb_reserved


@pytest.mark.parametrize(
    ("cpuid", "product"),
    [
        ((0x19, 0x01, 1), Product.MILAN),
        ((0x19, 0x11, 1), Product.GENOA),
        ((0x19, 0xA0, 2), Product.GENOA),
        ((0x1A, 0x02, 1), Product.TURIN),
        ((0x1A, 0x11, 0), Product.TURIN),
        ((0x19, 0x20, 0), None),
        ((0x1A, 0x50, 0), None),
        ((0x17, 0x31, 0), None),
        ((0, 0, 0), None),
    ],
)
def test_product_of_cpuid(cpuid: tuple[int, int, int], product: Product | None) -> None:
    """Bergamo and Siena (model A0h) are of Genoa; everything not listed is unknown."""
    assert product_of_cpuid(cpuid) is product


def test_tcb_layout_follows_the_product() -> None:
    """The same eight bytes mean different levels on Genoa and on Turin."""
    raw = bytes(range(1, 9))
    assert decode_tcb(raw, Product.GENOA) == {"bl": 1, "tee": 2, "snp": 7, "ucode": 8}
    assert decode_tcb(raw, Product.TURIN) == {"fmc": 1, "bl": 2, "tee": 3, "snp": 4, "ucode": 8}
    assert tcb_reserved(raw, Product.MILAN) == bytes((3, 4, 5, 6))
    assert tcb_reserved(raw, Product.TURIN) == bytes((5, 6, 7))


@pytest.mark.parametrize(("data", "check"), [(b"", "report_size"), (bytes(1184), "report_version")])
def test_fault_names_its_check(data: bytes, check: str) -> None:
    """Size and version are the only faults of parsing."""
    with pytest.raises(EvidenceMalformed) as caught:
        parse_report(data)
    assert caught.value.check == check


def test_every_byte_belongs_to_a_field() -> None:
    """Each of the 1,184 bytes changes some field of the parsed report besides its raw bytes."""
    blank = bytes((5, 0, 0, 0)) + bytes(1180)

    def fields(data: bytes) -> dict[str, object]:
        return {name: value for name, value in vars(parse_report(data)).items() if name != "raw"}

    unread = []
    for at in range(4, 1184):
        changed = bytearray(blank)
        changed[at] = 0xFF
        if fields(bytes(changed)) == fields(blank):
            unread.append(at)
    assert unread == []
