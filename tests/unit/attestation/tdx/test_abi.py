"""The parser of TDX quotes: fields, exact lengths, padding, types, and one form of certificates."""

import pytest
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.simulated.intel import pem
from confide_attestation.tdx import abi
from confide_attestation.tdx.abi import BODY_BYTES, BodyType, parse_quote

from tests.unit.attestation.tdx.support import REPORT_DATA, genuine, intel, judge


def fault(data: bytes) -> str:
    with pytest.raises(EvidenceMalformed) as raised:
        parse_quote(data)
    return raised.value.check


def with_chain(text: bytes) -> bytes:
    return intel().sign_quote(REPORT_DATA, chain=text)


def usual() -> bytes:
    return pem(intel().pck, intel().ca, intel().root).encode()


@pytest.mark.parametrize("body_type", [None, BodyType.TD10, BodyType.TD15])
def test_fields_are_read_relative_to_the_body(body_type: BodyType | None) -> None:
    """Version 5 has six bytes more before its body."""
    quote = parse_quote(intel().sign_quote(REPORT_DATA, body_type=body_type, rtmr3=b"\3" * 48))
    assert quote.version == (4 if body_type is None else 5)
    assert quote.field("report_data") == REPORT_DATA
    assert quote.field("rtmr3") == b"\3" * 48
    assert quote.field("mr_td") == intel().mr_td
    assert len(quote.signed) == 48 + (0 if body_type is None else 6) + BODY_BYTES[quote.body_type]
    assert quote.chain == (intel().pck, intel().ca, intel().root)


def test_a_field_that_a_body_lacks_is_empty() -> None:
    """TD 1.0 has no service TD."""
    assert parse_quote(genuine()[0]).field("mr_service_td") == b""


def test_every_cut_is_refused() -> None:
    """A quote that ends early is truncated, wherever it ends."""
    quote, _ = genuine()
    for size in range(len(quote)):
        assert fault(quote[:size]) in {"quote_size", "quote_truncated"}, size


def test_only_zero_bytes_may_follow() -> None:
    """And no more of them than the limit."""
    quote, _ = genuine()
    assert parse_quote(quote + bytes(3000)).data == quote
    assert fault(quote + b"\0" * 100 + b"\1") == "quote_trailing_data"
    assert fault(quote + b"\n") == "quote_trailing_data"
    assert fault(quote.ljust(abi.MAX_PADDED_BYTES + 1, b"\0")) == "quote_size"


def test_a_quote_has_its_own_limit() -> None:
    """Sixteen KiB without padding."""
    assert fault(with_chain(usual() + bytes(16 * 1024))) == "quote_lengths"


@pytest.mark.parametrize(
    ("at", "more", "check"),
    [
        (632, 1, "quote_truncated"),
        (766, 1, "quote_truncated"),
        (766, -1, "quote_lengths"),
        (1218, 1, "quote_lengths"),
        (1254, 1, "quote_truncated"),
        (1254, -1, "quote_lengths"),
    ],
)
def test_lengths_are_exact(at: int, more: int, check: str) -> None:
    """Each length is that of its content: authentication, certification data, QE data, certificates."""
    quote = bytearray(genuine()[0])
    quote[at] = (quote[at] + more) & 0xFF
    with pytest.raises(EvidenceMalformed) as raised:
        parse_quote(bytes(quote))
    assert raised.value.check in {check, "quote_truncated", "quote_lengths"}


def test_body_types_are_known_and_sized() -> None:
    """SGX bodies and TD 1.5 with extensions are not judged here; a size is that of its type."""
    quote = intel().sign_quote(REPORT_DATA, body_type=BodyType.TD15)
    for kind, size in ((1, 384), (4, 648), (0, 0), (2, 648), (3, 584), (3, 649)):
        lie = quote[:48] + kind.to_bytes(2, "little") + size.to_bytes(4, "little") + quote[54:]
        assert fault(lie) == "body_type"


def test_other_files_are_named() -> None:
    """What is found is said in a word."""
    sgx = b"\3\0\2\0" + bytes(500)
    for data, said in (
        (b'{"quote": "AAAA"}'.ljust(60), "JSON text"),
        (usual(), "PEM text"),
        (genuine()[0].hex().encode(), "hexadecimal text"),
        (intel().pck, "DER"),
        (sgx, "an SGX quote of version 3"),
        (b"\2\0\0\0".ljust(1184, b"\0"), "an SEV-SNP report"),
        (b"\xff" * 100, "starts with ffffffffffffffff"),
    ):
        with pytest.raises(EvidenceMalformed, match=said) as raised:
            parse_quote(data)
        assert raised.value.check == "quote_version"
    assert fault(b"\4\0\2\0\0\0\0\0" + bytes(1000)) == "tee_type"


def test_certificates_have_one_form() -> None:
    """Every other spelling of the same certificates is refused."""
    text = usual()
    assert parse_quote(with_chain(text)).chain == parse_quote(with_chain(text + bytes(5))).chain
    first, second, third, _ = text.split(b"-----END CERTIFICATE-----\n")
    end = b"-----END CERTIFICATE-----\n"
    for other in (
        text.replace(b"\n", b"\r\n"),
        text.rstrip(b"\n"),
        text + b"\n",
        b"\n" + text,
        b" " + text,
        text.replace(b"\n", b"\n\n", 3),
        first + end + second + end,
        text + first + end,
        text + b"\0x",
        third + second + first,
        text.replace(b"A", b"*", 1),
        text.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"),
        b"",
    ):
        assert fault(with_chain(other)) == "pck_chain_format"
    swapped = first + end + third + end + second + end
    assert judge(with_chain(swapped)).verdict == "refused"


def test_no_bit_of_a_quote_can_be_flipped() -> None:
    """Every bit counts: of header, body, signatures, keys, lengths, certificates and the zero byte after them."""
    quote, _ = genuine()
    accepted = []
    for at in range(len(quote)):
        changed = bytearray(quote)
        changed[at] ^= 1 << at % 8
        if judge(bytes(changed)).verdict == "authentic":
            accepted.append(at)
    assert accepted == []
