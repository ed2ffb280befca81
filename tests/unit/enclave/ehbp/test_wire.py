"""EHBP's frames and derivations."""

import os

import pytest
from confide_enclave.ehbp.wire import LENGTH_BYTES, RequestOpener, ResponseSealer
from confide_protocol.errors import DecryptionFailed, LocalStateError, Malformed, ProtocolError, Truncated
from confide_protocol.hpke import KemId, PrivateKey

from tests.fakes.ehbp import Sealed, frame, frames_of

LIMIT = 1 << 20


def key() -> PrivateKey:
    return PrivateKey.generate(KemId.X25519, os.urandom(32))


def opener(*keys: PrivateKey, request: Sealed, limit: int = LIMIT) -> RequestOpener:
    return RequestOpener(keys, request.enc, limit)


def test_a_request_opens_however_it_is_split() -> None:
    """Frames come back in order from pieces of any size, empty frames are passed over."""
    ours = key()
    for size in (1, 3, 4, 5, 1000):
        request = Sealed(ours.public, b"x")
        body = frame(b"") + request.seal(b"first") + frame(b"") + request.seal(b"second") + frame(b"")
        opens = opener(ours, request=request)
        found = [plain for at in range(0, len(body), size) for plain in opens.push(body[at : at + size])]
        opens.finish()
        assert found == [b"first", b"second"]


def test_the_first_frame_tells_the_key() -> None:
    """Any of the keys may be meant; all later frames are of the same one."""
    keys = [key(), key()]
    for place, each in enumerate(keys):
        request = Sealed(each.public, b"x")
        opens = opener(*keys, request=request)
        assert opens.opened_by is None
        assert opens.push(request.seal(b"one") + request.seal(b"two")) == [b"one", b"two"]
        assert opens.opened_by == place


@pytest.mark.parametrize("spoil", ["another key", "another enc", "a bit", "no key at all", "a point of low order"])
def test_what_no_key_opens_fails_alike(spoil: str) -> None:
    """Before a frame has opened every cryptographic cause is the one DecryptionFailed."""
    ours = key()
    request = Sealed(ours.public, b"x")
    body = bytearray(request.seal(b"secret"))
    keys, enc = [ours], request.enc
    if spoil == "another key":
        keys = [key()]
    elif spoil == "another enc":
        enc = Sealed(ours.public, b"x").enc
    elif spoil == "a bit":
        body[-1] ^= 1
    elif spoil == "no key at all":
        keys = []
    else:
        enc = bytes(32)
    opens = RequestOpener(keys, enc, LIMIT)
    with pytest.raises(DecryptionFailed):
        opens.push(bytes(body))
    assert opens.opened_by is None
    with pytest.raises(LocalStateError):
        opens.push(b"")


def test_frames_cannot_be_changed_dropped_or_swapped() -> None:
    """After the first frame each has its place; whatever else stands there does not open."""
    ours = key()
    for harm in (lambda f: [f[0], f[2]], lambda f: [f[0], f[2], f[1]], lambda f: [f[0], f[0]], lambda f: [f[1]]):
        request = Sealed(ours.public, b"x")
        frames = [request.seal(text) for text in (b"one", b"two", b"three")]
        with pytest.raises(DecryptionFailed):
            opener(ours, request=request).push(b"".join(harm(frames)))


def test_a_cut_inside_a_frame_is_told_and_one_between_frames_is_not() -> None:
    """What the dialect lacks: a body that lost its last frames looks whole."""
    ours = key()
    request = Sealed(ours.public, b"x")
    first, second = request.seal(b"one"), request.seal(b"two")
    cut = opener(ours, request=request)
    assert cut.push(first + second[:-1]) == [b"one"]
    with pytest.raises(Truncated):
        cut.finish()
    unseen = opener(ours, request=request)
    assert unseen.push(first) == [b"one"]
    unseen.finish()


@pytest.mark.parametrize("body", [b"", frame(b""), frame(b"") * 3])
def test_a_request_without_a_frame_is_none(body: bytes) -> None:
    """A field without a body proves nothing: whoever sent it may not hold the key's other half."""
    ours = key()
    opens = opener(ours, request=Sealed(ours.public, b"x"))
    assert opens.push(body) == []
    with pytest.raises(Malformed):
        opens.finish()


@pytest.mark.parametrize("length", [1, 15, LIMIT + 1, (1 << 32) - 1])
def test_a_frames_length_is_bounded_before_anything_is_kept(length: int) -> None:
    """A length over the limit, or under a tag's, is refused by its four bytes alone."""
    ours = key()
    with pytest.raises(Malformed):
        opener(ours, request=Sealed(ours.public, b"x")).push(length.to_bytes(LENGTH_BYTES, "big"))


def test_a_response_is_sealed_to_the_request_and_the_nonce() -> None:
    """The client opens it; another request's client, or another nonce, does not."""
    ours = key()
    request, other = Sealed(ours.public, b"x"), Sealed(ours.public, b"x")
    opens = opener(ours, request=request)
    opens.push(request.seal(b"hello"))
    sealer = opens.response_sealer(os.urandom(32))
    body = sealer.seal(b"one") + sealer.seal(b"") + sealer.seal(b"two")
    assert len(frames_of(body)) == 2
    assert request.open(sealer.nonce.hex(), body) == [b"one", b"two"]
    for client, nonce in ((other, sealer.nonce), (request, os.urandom(32))):
        with pytest.raises(ProtocolError):
            client.open(nonce.hex(), body)


def test_a_response_needs_a_request_that_opened_and_a_nonce_that_is_random() -> None:
    """No answer before the boundary; zeros are what a failed generator gives."""
    ours = key()
    with pytest.raises(LocalStateError):
        opener(ours, request=Sealed(ours.public, b"x")).response_sealer(os.urandom(32))
    for nonce in (bytes(32), os.urandom(31)):
        with pytest.raises(LocalStateError):
            ResponseSealer(os.urandom(32), os.urandom(32), nonce)
