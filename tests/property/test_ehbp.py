"""EHBP's frames: any cut gives the same plaintexts, any damage a declared error; what it cannot tell, as well."""

from confide_enclave.ehbp.wire import RequestOpener
from confide_protocol.errors import DecryptionFailed, ProtocolError
from confide_protocol.hpke import KemId, PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.ehbp import Sealed, frame
from tests.property.cuts import CUTS, split

KEYS = [PrivateKey.generate(KemId.X25519, bytes([n]) * 32) for n in (5, 6)]
TEXTS = st.lists(st.one_of(st.binary(min_size=1, max_size=100), st.just(bytes(5000))), min_size=1, max_size=5)
LIMIT = 1 << 16


def opened(
    request: Sealed, pieces: list[bytes], keys: list[PrivateKey] = KEYS
) -> list[bytes] | type[ProtocolError]:
    """All plaintexts, or the class of the error."""
    opener = RequestOpener(keys, request.enc, LIMIT)
    try:
        texts = [text for piece in pieces for text in opener.push(piece)]
        opener.finish()
    except ProtocolError as error:
        return type(error)
    return texts


def body_of(request: Sealed, texts: list[bytes], gaps: bool) -> bytes:
    between = frame(b"") if gaps else b""
    return b"".join(between + request.seal(text) for text in texts) + between


@given(TEXTS, CUTS, st.sampled_from(KEYS), st.booleans())
def test_any_cut_gives_the_same_plaintexts(
    texts: list[bytes], cuts: list[int], key: PrivateKey, gaps: bool
) -> None:
    """Whichever key is meant, however the bytes come, with empty frames between or without."""
    request = Sealed(key.public, b"")
    assert opened(request, split(body_of(request, texts, gaps), cuts)) == texts


@given(TEXTS, CUTS, st.integers(0), st.integers(1, 255))
def test_any_changed_byte_is_a_declared_error(texts: list[bytes], cuts: list[int], at: int, mask: int) -> None:
    """No byte of a body can change unseen, its frames' lengths included."""
    request = Sealed(KEYS[0].public, b"")
    body = bytearray(body_of(request, texts, False))
    body[at % len(body)] ^= mask
    assert isinstance(opened(request, split(bytes(body), cuts)), type)


@given(TEXTS, st.integers(0))
def test_a_body_cut_short_is_an_error_or_a_shorter_one(texts: list[bytes], at: int) -> None:
    """The dialect's hole, exactly: a cut between frames, and only there, gives the texts before it."""
    request = Sealed(KEYS[0].public, b"")
    frames = [request.seal(text) for text in texts]
    body = b"".join(frames)
    end = at % len(body)
    edges = {sum(map(len, frames[:count])): count for count in range(1, len(frames))}
    said = opened(request, [body[:end]])
    assert said == texts[: edges[end]] if end in edges else isinstance(said, type)


@given(TEXTS)
def test_a_key_that_is_not_held_opens_nothing(texts: list[bytes]) -> None:
    """Without the right key among those held: one error, whatever came."""
    request = Sealed(KEYS[0].public, b"")
    assert opened(request, [body_of(request, texts, False)], KEYS[1:]) is DecryptionFailed
