"""Where AMD has a report's certificate, by what the certificate itself says."""

from dataclasses import replace

import pytest
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.snp.abi import parse_report
from confide_attestation.snp.kds import vek_urls

from tests.shared import shared_path


def report(name: str) -> bytes:
    return shared_path("evidence", "snp", name, "report.bin").read_bytes()


@pytest.mark.parametrize(
    ("name", "products"),
    [
        ("milan_v3_vcek_ms", ["Milan"]),
        ("genoa_v3_vcek_ms", ["Genoa"]),
        ("turin_v5_vcek_ms", ["Turin"]),
        ("milan_v2_vcek_trustee", ["Milan", "Genoa"]),
    ],
)
def test_address_of_real_reports(name: str, products: list[str]) -> None:
    """Product, chip (8 bytes on Turin) and each component of the reported TCB, in decimal."""
    parsed = parse_report(report(name))
    urls = vek_urls(parsed)
    assert [url.split("/")[5] for url in urls] == products
    for url in urls:
        path, _, query = url.partition("?")
        chip = bytes.fromhex(path.rpartition("/")[2])
        assert parsed.chip_id.startswith(chip)
        assert len(chip) == (8 if products == ["Turin"] else 64)
        levels = [int(part.partition("=")[2]) for part in query.split("&")]
        assert sorted(levels) == sorted(parsed.reported_tcb[at] for at in places(products[0]))


def places(product: str) -> tuple[int, ...]:
    return (0, 1, 2, 3, 7) if product == "Turin" else (0, 1, 6, 7)


def test_what_amd_has_no_address_for() -> None:
    """A VLEK is the cloud's to hand out, a masked chip has no name, an unknown product no place."""
    genoa = parse_report(report("genoa_v3_vcek_ms"))
    for parsed in (
        parse_report(report("milan_v3_vlek_aws_trustee")),
        replace(genoa, chip_id=bytes(64)),
        replace(genoa, cpuid=(0x1B, 0, 0)),
    ):
        with pytest.raises(EvidenceMalformed):
            vek_urls(parsed)
