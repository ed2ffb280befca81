"""Fuzz targets of EHBP's frames: arbitrary bytes raise ProtocolError or nothing, however they are split."""

from collections.abc import Callable
from contextlib import suppress

from confide_enclave.ehbp.wire import REQUEST_INFO, SUITE, RequestOpener
from confide_protocol import hpke
from confide_protocol.errors import ProtocolError
from confide_protocol.hpke import KemId, PrivateKey

from tests.fuzz.fuzz_wire import halves

KEYS = [PrivateKey.generate(KemId.X25519, bytes([n]) * 32) for n in (1, 2)]
MAX_FRAME_BYTES = 4096


def frames(data: bytes) -> None:
    """An enc, then a body: split in two or whole, the outcome is the same."""

    def outcome(*pieces: bytes) -> tuple[list[bytes], type[ProtocolError] | None, int | None]:
        opener = RequestOpener(KEYS, data[:32].ljust(32, b"\x01"), MAX_FRAME_BYTES)
        found: list[bytes] = []
        fault = None
        try:
            for piece in pieces:
                found += opener.push(piece)
            opener.finish()
        except ProtocolError as error:
            fault = type(error)
        return found, fault, opener.opened_by

    first, second = halves(data[32:])
    split, whole = outcome(first, second), outcome(first + second)
    assert split[1:] == whole[1:]
    if whole[1] is None:
        assert split == whole


def authentic(data: bytes) -> None:
    """Frames of the input's own bytes open to them; with one bit changed they raise and nothing else."""
    enc, context = hpke.setup_base_sender(SUITE, KEYS[1].public, REQUEST_INFO, b"\x03" * 32)
    pieces = [data[at : at + 64] for at in range(0, len(data), 64)] or [b""]
    sealed = [context.seal(b"", piece) for piece in pieces]
    body = b"".join(len(each).to_bytes(4, "big") + each for each in sealed)
    opener = RequestOpener(KEYS, enc, MAX_FRAME_BYTES)
    assert opener.push(body) == pieces
    opener.finish()
    at = sum(data) % len(body)
    harmed = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
    opener = RequestOpener(KEYS, enc, MAX_FRAME_BYTES)
    with suppress(ProtocolError):
        opener.push(harmed)
        opener.finish()
        raise AssertionError("a changed body opened")


def seeds() -> dict[str, list[bytes]]:
    """Give requests that open, with one frame and with several, so that fuzzing starts past the first one."""
    found = []
    for key, texts in ((KEYS[0], [b"{}"]), (KEYS[1], [b"a", b"", b"b" * 100])):
        enc, context = hpke.setup_base_sender(SUITE, key.public, REQUEST_INFO, b"\x04" * 32)
        sealed = [context.seal(b"", text) for text in texts]
        found.append(enc + b"\x05" + b"".join(len(each).to_bytes(4, "big") + each for each in sealed))
    return {"ehbp_frames": found}


TARGETS: dict[str, Callable[[bytes], None]] = {"ehbp_frames": frames, "ehbp_authentic": authentic}
