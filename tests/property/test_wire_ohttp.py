"""Chunked OHTTP: any cut gives the same plaintexts, any damage a declared error."""

from confide_protocol.errors import ProtocolError
from confide_protocol.hpke import HKDF_SHA256, REQUIRED, AeadId, KemId, PrivateKey, Suite
from confide_protocol.keyconfig import KeyConfig
from confide_protocol.ohttp import (
    RequestOpener,
    RequestSealer,
    ResponseOpener,
    ResponseSealer,
    response_nonce_bytes,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.property.cuts import CUTS, split

FOREIGN = Suite(KemId.X25519, AeadId.CHACHA20_POLY1305)
KEYS = {
    1: (REQUIRED, PrivateKey.generate(KemId.X_WING, b"\x01" * 32)),
    2: (FOREIGN, PrivateKey.generate(KemId.X25519, b"\x02" * 32)),
}
CONFIGS = [
    (KeyConfig(key_id, suite.kem, key.public, ((HKDF_SHA256, suite.aead),)), suite)
    for key_id, (suite, key) in KEYS.items()
]
TEXTS = st.lists(st.one_of(st.binary(max_size=100), st.integers(16_380, 16_390).map(bytes)), max_size=5)
SECRET, ENC = b"s" * 32, b"e" * 32


def outcome(opener: RequestOpener | ResponseOpener, pieces: list[bytes]) -> list[bytes] | type[ProtocolError]:
    """All plaintexts, or the class of the error."""
    try:
        return [text for piece in pieces for text in opener.push(piece)] + opener.finish()
    except ProtocolError as error:
        assert not opener.complete
        return type(error)


def request(which: int, texts: list[bytes]) -> bytes:
    sealer = RequestSealer(*CONFIGS[which], b"\x03" * 32)
    return sealer.header + b"".join(sealer.seal(text) for text in texts) + sealer.seal(b"", final=True)


def response(texts: list[bytes]) -> bytes:
    aead = AeadId.AES_256_GCM
    sealer = ResponseSealer(aead, SECRET, ENC, b"n" * response_nonce_bytes(aead))
    return sealer.prefix + b"".join(sealer.seal(text) for text in texts) + sealer.seal(b"", final=True)


def response_opener() -> ResponseOpener:
    return ResponseOpener(AeadId.AES_256_GCM, SECRET, ENC)


@given(which=st.integers(0, 1), texts=TEXTS, cuts=CUTS)
def test_a_request_comes_back_however_it_is_cut(which: int, texts: list[bytes], cuts: list[int]) -> None:
    """The same chunks open under any cut, and together they are what was sealed."""
    stream = request(which, texts)
    opened = outcome(RequestOpener(KEYS), split(stream, cuts))
    assert opened == outcome(RequestOpener(KEYS), [stream])
    assert b"".join(opened) == b"".join(texts)


@given(texts=TEXTS, cuts=CUTS)
def test_a_response_comes_back_however_it_is_cut(texts: list[bytes], cuts: list[int]) -> None:
    """The same chunks open under any cut, and together they are what was sealed."""
    stream = response(texts)
    opened = outcome(response_opener(), split(stream, cuts))
    assert opened == outcome(response_opener(), [stream])
    assert b"".join(opened) == b"".join(texts)


@given(texts=TEXTS, at=st.integers(0, 100_000), flip=st.integers(1, 255), cuts=CUTS)
def test_a_changed_byte_never_gives_a_whole_response(
    texts: list[bytes], at: int, flip: int, cuts: list[int]
) -> None:
    """Whatever byte changes, nonce and lengths included, the error is declared and the same under any cut."""
    stream = bytearray(response(texts))
    stream[at % len(stream)] ^= flip
    found = outcome(response_opener(), split(bytes(stream), cuts))
    assert isinstance(found, type)
    assert found is outcome(response_opener(), [bytes(stream)])


@given(texts=TEXTS, end=st.integers(0, 100_000))
def test_a_cut_stream_never_looks_whole(texts: list[bytes], end: int) -> None:
    """No proper beginning of a message is a message, in either direction."""
    for opener, stream in ((RequestOpener(KEYS), request(1, texts)), (response_opener(), response(texts))):
        assert isinstance(outcome(opener, [stream[: end % len(stream)]]), type)


@given(header=st.sampled_from([b"", *(request(which, [])[:7] for which in (0, 1))]), noise=st.binary(max_size=2000))
def test_noise_never_opens(header: bytes, noise: bytes) -> None:
    """Arbitrary bytes, behind a known header or none, raise a declared error."""
    assert isinstance(outcome(RequestOpener(KEYS), [header + noise]), type)
    assert isinstance(outcome(response_opener(), [header + noise]), type)
