"""Fuzz the readers of receipts, of AIR receipts and of server-sent events."""

from collections.abc import Callable

from confide_protocol import cbor
from confide_protocol.audit.air import verify_air
from confide_protocol.errors import Malformed, ReceiptInvalid, TooLarge
from confide_protocol.receipt import parse_claims, parse_receipt, sign_receipt
from confide_protocol.sse import EventSplitter

from tests.fakes.receipts import CLAIMS, ED25519, KEYSET, ML_DSA_65


def receipt(data: bytes) -> None:
    try:
        parse_receipt(data)
    except Malformed:
        return


def receipt_claims(data: bytes) -> None:
    try:
        claims = parse_claims(data)
    except Malformed:
        return
    assert claims.encoded == data


def air(data: bytes) -> None:
    try:
        verify_air(data, bytes(32))
    except ReceiptInvalid:
        return


def air_claims(data: bytes) -> None:
    """Past the signature: the input is the payload, signed here."""
    protected = cbor.encode({1: -8, 3: 61})
    signature = ED25519.sign(cbor.encode(["Signature1", protected, b"", data]))
    try:
        verify_air(b"\xd2" + cbor.encode([protected, {}, data, signature]), KEYSET.receipt_ed25519)
    except ReceiptInvalid:
        return


def sse(data: bytes) -> None:
    """The first byte chooses how the rest is cut; the cut may change nothing."""
    piece, stream = (data[0] or 1, data[1:]) if data else (1, b"")
    whole, cut = EventSplitter(4096), EventSplitter(4096)
    try:
        events = whole.push(stream)
    except TooLarge:
        return
    pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)]
    assert [event for each in pieces for event in cut.push(each)] == events
    assert cut.finish() == whole.finish()


def seeds() -> dict[str, list[bytes]]:
    stream = b'data: {"a":1}\n\n: comment\n\ndata: [DONE]\n\n'
    return {
        "receipt": [sign_receipt(CLAIMS, ED25519, ML_DSA_65)],
        "receipt_claims": [CLAIMS.encoded],
        "sse": [b"\3" + stream],
    }


TARGETS: dict[str, Callable[[bytes], None]] = {
    "receipt": receipt,
    "receipt_claims": receipt_claims,
    "air": air,
    "air_claims": air_claims,
    "sse": sse,
}
