"""The host's certificate table."""

import struct

import pytest
from confide_attestation.evidence import SnpEndorsements
from confide_enclave.collect.certificates import parse_certificate_table
from confide_enclave.errors import DeviceUnavailable

from tests.unit.enclave.collect.kernel import ARK, ASK, CRL, VCEK, VLEK, table


def test_certificates_are_found_by_their_guids():
    """All that AMD's specification names, in any order, with padding after them."""
    data = table((ARK, b"ark"), (VCEK, b"vcek"), (CRL, b"crl"), (ASK, b"ask")) + bytes(4096)
    assert parse_certificate_table(data) == SnpEndorsements(vek=b"vcek", ask=b"ask", ark=b"ark", crl=b"crl")


def test_a_vlek_stands_in_for_the_vcek():
    """A cloud's key comes before the chip's, and unknown entries do not matter."""
    data = table((VCEK, b"vcek"), (VLEK, b"vlek"), ("00000000-0000-0000-0000-000000000001", b"?"))
    assert parse_certificate_table(data) == SnpEndorsements(vek=b"vlek")


@pytest.mark.parametrize("data", [b"", bytes(24), bytes(16 * 1024), table((ASK, b"ask")), table((VCEK, b""))])
def test_a_table_without_a_key_offers_nothing(data):
    """Bare metal has none: the certificates come from elsewhere."""
    assert parse_certificate_table(data) is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (table((VCEK, b"v"), (VCEK, b"w")), "twice"),
        (table((VCEK, b"vcek"))[:-1], "beyond its end"),
        (table((VCEK, b"vcek"), at=1 << 31), "beyond its end"),
        (table((VCEK, b"vcek"))[:20], "does not end"),
        (b"".join(n.to_bytes(16) + struct.pack("<II", 0, 0) for n in range(1, 30)), "more than 16"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(data, said):
    """No certificate of it is used."""
    with pytest.raises(DeviceUnavailable, match=said):
        parse_certificate_table(data)
