"""Chunked OHTTP: what arrives whole is opened, everything else is a typed error."""

import hashlib

import pytest
from confide_protocol import labels, varint
from confide_protocol.errors import (
    DecryptionFailed,
    LocalStateError,
    Malformed,
    ProtocolError,
    Truncated,
    UnknownKey,
)
from confide_protocol.hpke import HKDF_SHA256, REQUIRED, TAG_BYTES, AeadId, KemId, PrivateKey, Suite
from confide_protocol.keyconfig import KeyConfig
from confide_protocol.ohttp import (
    RequestOpener,
    RequestSealer,
    ResponseOpener,
    ResponseSealer,
    response_nonce_bytes,
)

FOREIGN = Suite(KemId.X25519, AeadId.AES_128_GCM)
SUITES = (REQUIRED, FOREIGN)
every_suite = pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
KEYS = {
    1: (REQUIRED, PrivateKey.generate(KemId.X_WING, b"\x01" * 32)),
    2: (FOREIGN, PrivateKey.generate(KemId.X25519, b"\x02" * 32)),
}
CONFIGS = {
    suite: KeyConfig(key_id, suite.kem, key.public, ((HKDF_SHA256, suite.aead),))
    for key_id, (suite, key) in KEYS.items()
}
TEXTS = [b"one", b"two two", b"three three three"]


def sealed_request(suite: Suite, texts: list[bytes], last: bytes = b"") -> tuple[RequestSealer, list[bytes]]:
    """A request as a client sends it: header, chunks, final chunk."""
    client = RequestSealer(CONFIGS[suite], suite, b"\x03" * 32)
    return client, [client.header, *(client.seal(text) for text in texts), client.seal(last, final=True)]


def exchange(suite: Suite, texts: list[bytes], last: bytes = b"") -> tuple[ResponseOpener, list[bytes]]:
    """A response as an enclave sends it (prefix, chunks, final chunk), and the client's opener for it."""
    client, request = sealed_request(suite, [b"question"])
    enclave = RequestOpener(KEYS)
    enclave.push(b"".join(request))
    enclave.finish()
    answer = enclave.response_sealer(b"\x04" * response_nonce_bytes(suite.aead))
    pieces = [answer.prefix, *(answer.seal(text) for text in texts), answer.seal(last, final=True)]
    return client.response_opener(), pieces


def open_all(opener: RequestOpener | ResponseOpener, pieces: list[bytes]) -> list[bytes]:
    return [text for piece in pieces for text in opener.push(piece)] + opener.finish()


def bad_streams(pieces: list[bytes]) -> dict[str, list[bytes]]:
    """Drop, repeat, swap and cut at every boundary of a stream of prefix, chunks and final chunk."""
    streams = {}
    for i in range(len(pieces)):
        streams[f"without piece {i}"] = pieces[:i] + pieces[i + 1 :]
        streams[f"piece {i} twice"] = [*pieces[:i], pieces[i], *pieces[i:]]
        streams[f"cut before piece {i}"] = pieces[:i]
        streams[f"cut inside piece {i}"] = [*pieces[:i], pieces[i][:-1]]
    for i in range(len(pieces) - 1):
        streams[f"pieces {i} and {i + 1} swapped"] = [*pieces[:i], pieces[i + 1], pieces[i], *pieces[i + 2 :]]
    streams["bytes after the end"] = [*pieces, b"\0"]
    streams["the final chunk marked as another"] = [*pieces[:-1], relabel(pieces[-1])]
    streams["another chunk marked as final"] = [*pieces[:-2], b"\0" + pieces[-2][1:]]
    return streams


def relabel(final: bytes) -> bytes:
    return varint.encode(len(final) - 1) + final[1:] + b"\0"


BAD_STREAMS = list(bad_streams([b"prefix", *TEXTS, b"final final"]))


@every_suite
def test_a_request_and_its_response(suite: Suite) -> None:
    """Both directions open, and say when they are authenticated and complete."""
    client, request = sealed_request(suite, TEXTS, b"end")
    enclave = RequestOpener(KEYS)
    assert (enclave.enc, enclave.enc_digest) == (None, None)
    assert enclave.push(request[0]) == []
    assert enclave.enc == client.enc
    assert enclave.enc_digest == hashlib.sha256(client.enc).digest()
    assert not enclave.authenticated
    assert enclave.push(request[1]) == TEXTS[:1]
    assert enclave.authenticated
    assert enclave.push(b"".join(request[2:])) == TEXTS[1:]
    assert not enclave.complete
    assert enclave.finish() == [b"end"]
    assert enclave.complete

    answer = enclave.response_sealer(b"\x04" * response_nonce_bytes(suite.aead))
    response = answer.prefix + answer.seal(b"hello") + answer.seal(b"", final=True)
    opener = client.response_opener()
    assert opener.push(response) == [b"hello"]
    assert not opener.complete
    assert opener.finish() == []
    assert opener.complete


@every_suite
def test_a_request_of_one_final_chunk(suite: Suite) -> None:
    """A request may be its final chunk alone; it authenticates when the stream ends."""
    enclave = RequestOpener(KEYS)
    assert enclave.push(b"".join(sealed_request(suite, [], b"all")[1])) == []
    assert not enclave.authenticated
    assert enclave.finish() == [b"all"]
    assert enclave.authenticated


@every_suite
@pytest.mark.parametrize("name", BAD_STREAMS)
def test_a_tampered_request_is_refused(suite: Suite, name: str) -> None:
    """No cut, drop, swap or repetition at any boundary gives a complete request."""
    enclave = RequestOpener(KEYS)
    with pytest.raises((DecryptionFailed, Malformed, Truncated, UnknownKey)):
        open_all(enclave, bad_streams(sealed_request(suite, TEXTS, b"end of it all, with some length")[1])[name])
    assert not enclave.complete


@every_suite
@pytest.mark.parametrize("name", BAD_STREAMS)
def test_a_tampered_response_is_refused(suite: Suite, name: str) -> None:
    """No cut, drop, swap or repetition at any boundary gives a complete response."""
    opener, pieces = exchange(suite, TEXTS, b"end of it all, with some length")
    with pytest.raises((DecryptionFailed, Malformed, Truncated)):
        open_all(opener, bad_streams(pieces)[name])
    assert not opener.complete


@every_suite
@pytest.mark.parametrize("cut", ["before the final chunk", "after its mark", "inside it"])
def test_a_cut_response_is_truncated(suite: Suite, cut: str) -> None:
    """Where no whole final chunk can stand, the error is Truncated; a shortened one does not authenticate."""
    opener, pieces = exchange(suite, TEXTS, b"end")
    final = {"before the final chunk": b"", "after its mark": pieces[-1][:1], "inside it": pieces[-1][:-1]}[cut]
    for piece in [*pieces[:-1], final]:
        opener.push(piece)
    with pytest.raises(DecryptionFailed if cut == "inside it" else Truncated):
        opener.finish()


@every_suite
def test_a_request_reflected_as_its_response_is_refused(suite: Suite) -> None:
    """The client's own chunks do not open as an answer, whether its header or a nonce leads them."""
    for prefix in (None, b"\x05" * response_nonce_bytes(suite.aead)):
        client, request = sealed_request(suite, TEXTS)
        pieces = request if prefix is None else [prefix, *request[1:]]
        with pytest.raises((DecryptionFailed, Malformed, Truncated)):
            open_all(client.response_opener(), pieces)


@every_suite
def test_a_response_to_another_request_is_refused(suite: Suite) -> None:
    """Two requests of one client have two response keys."""
    _, pieces = exchange(suite, TEXTS)
    other = RequestSealer(CONFIGS[suite], suite, b"\x07" * 32)
    with pytest.raises(DecryptionFailed):
        open_all(other.response_opener(), pieces)


@pytest.mark.parametrize("at", range(7))
def test_a_changed_header_is_refused(at: int) -> None:
    """Key id, KEM, KDF and AEAD must be those of a key that is held."""
    _, pieces = sealed_request(REQUIRED, TEXTS)
    header = bytearray(pieces[0])
    for value in set(range(256)) - {header[at]}:
        header[at] = value
        with pytest.raises(UnknownKey):
            RequestOpener(KEYS).push(bytes(header))


def test_the_header_is_bound_to_the_chunks() -> None:
    """A request moved to another id or suite of the very same key does not open."""
    _, key = KEYS[1]
    _, pieces = sealed_request(REQUIRED, TEXTS)
    for key_id, suite in ((9, REQUIRED), (1, Suite(KemId.X_WING, AeadId.CHACHA20_POLY1305))):
        moved = bytes([key_id]) + suite.encoded + pieces[0][7:]
        with pytest.raises(DecryptionFailed):
            open_all(RequestOpener({key_id: (suite, key)}), [moved, *pieces[1:]])


def test_an_unknown_key_is_refused_from_its_header() -> None:
    """Seven bytes suffice to say that a key is not held; nothing more is kept."""
    with pytest.raises(UnknownKey):
        RequestOpener({}).push(sealed_request(REQUIRED, [])[1][0][:7])


@pytest.mark.parametrize("at", [7, 600, 7 + 1088, 7 + 1119])
def test_a_changed_enc_is_refused(at: int) -> None:
    """A flipped bit in either half of X-Wing's enc opens nothing."""
    _, pieces = sealed_request(REQUIRED, TEXTS)
    pieces[0] = pieces[0][:at] + bytes([pieces[0][at] ^ 1]) + pieces[0][at + 1 :]
    with pytest.raises(DecryptionFailed):
        open_all(RequestOpener(KEYS), pieces)


def test_a_large_plaintext_is_split() -> None:
    """Senders keep to 16,384 bytes a chunk; empty plaintext that is not final is nothing."""
    for size, final in ((16_384, False), (16_385, False), (50_000, False), (50_000, True), (32_768, True)):
        client = RequestSealer(CONFIGS[REQUIRED], REQUIRED, b"\x03" * 32)
        pieces = [client.header, client.seal(b"x" * size, final=final)]
        pieces += [] if final else [client.seal(b""), client.seal(b"", final=True)]
        texts = open_all(RequestOpener(KEYS), pieces)
        assert b"".join(texts) == b"x" * size
        assert len(texts) == -(-size // 16_384)


LENGTHS = {
    "empty": varint.encode(TAG_BYTES),
    "shorter than a tag": varint.encode(TAG_BYTES - 1),
    "over the limit": varint.encode(labels.CHUNK_PLAINTEXT_BYTES + TAG_BYTES + 1),
    "of 2**62-1 bytes": b"\xff" * 8,
}


@pytest.mark.parametrize("length", LENGTHS)
def test_chunk_lengths_are_bounded(length: str) -> None:
    """A chunk that is empty or over its limit is refused from its length alone."""
    opener, pieces = exchange(REQUIRED, [])
    opener.push(pieces[0])
    with pytest.raises(Malformed):
        opener.push(LENGTHS[length])


def test_an_authenticated_empty_chunk_is_refused() -> None:
    """Empty chunks are refused even from who holds the key: the draft counts them as decryption errors."""
    client = RequestSealer(CONFIGS[REQUIRED], REQUIRED, b"\x03" * 32)
    empty = client._sealer.seal(b"", b"")
    with pytest.raises(Malformed):
        RequestOpener(KEYS).push(client.header + varint.encode(len(empty)) + empty)


def test_the_final_chunk_is_bounded() -> None:
    """The final chunk has no length of its own; it is held to the same limit."""
    opener, pieces = exchange(REQUIRED, [])
    opener.push(pieces[0] + b"\0" + b"x" * (labels.CHUNK_PLAINTEXT_BYTES + 16))
    with pytest.raises(Malformed):
        opener.push(b"x")


def test_a_chunk_of_the_full_size_is_taken() -> None:
    """16,384 bytes is what every receiver must take, final or not."""
    opener, pieces = exchange(REQUIRED, [b"a" * 16_384], b"b" * 16_384)
    assert open_all(opener, pieces) == [b"a" * 16_384, b"b" * 16_384]


def test_a_later_failure_leaves_the_request_authenticated() -> None:
    """After its first chunk a request is answered sealed, even where a later chunk of the same read fails."""
    _, request = sealed_request(REQUIRED, TEXTS)
    enclave = RequestOpener(KEYS)
    with pytest.raises(DecryptionFailed):
        enclave.push(request[0] + request[1] + request[3])
    assert enclave.authenticated
    assert enclave.enc_digest is not None
    enclave.response_sealer(b"\x04" * 32)


@pytest.mark.parametrize("fail", [True, False])
def test_after_an_error_or_the_end_nothing_is_read(fail: bool) -> None:
    """An opener that failed or finished takes nothing more."""
    opener, pieces = exchange(REQUIRED, TEXTS)
    if fail:
        with pytest.raises(Malformed):
            opener.push(pieces[0] + b"\x01")
    else:
        open_all(opener, pieces)
    with pytest.raises(LocalStateError):
        opener.push(b"")
    with pytest.raises(LocalStateError):
        opener.finish()


def test_nothing_is_sealed_after_the_final_chunk() -> None:
    """A final chunk is final."""
    client, _ = sealed_request(REQUIRED, [])
    for final in (True, False):
        with pytest.raises(LocalStateError):
            client.seal(b"more", final=final)


def test_a_request_is_answered_once_and_only_when_authenticated() -> None:
    """Neither before the first chunk has opened, nor twice: two answers could share a nonce."""
    enclave = RequestOpener(KEYS)
    _, request = sealed_request(REQUIRED, TEXTS)
    for piece in (b"", request[0]):
        enclave.push(piece)
        with pytest.raises(LocalStateError):
            enclave.response_sealer(b"\x04" * 32)
    enclave.push(request[1])
    enclave.response_sealer(b"\x04" * 32)
    with pytest.raises(LocalStateError):
        enclave.response_sealer(b"\x05" * 32)


@every_suite
def test_broken_randomness_is_refused(suite: Suite) -> None:
    """All-zero or wrongly sized randomness seals nothing, and an all-zero nonce is not accepted either."""
    size = response_nonce_bytes(suite.aead)
    for randomness in (bytes(32), b"", b"\x01" * 31, b"\x01" * 33):
        with pytest.raises(LocalStateError):
            RequestSealer(CONFIGS[suite], suite, randomness)
    for nonce in (bytes(size), b"", b"\x01" * (size - 1), b"\x01" * (size + 1)):
        with pytest.raises(LocalStateError):
            ResponseSealer(suite.aead, b"s" * size, b"enc", nonce)
    opener, pieces = exchange(suite, TEXTS)
    with pytest.raises(Malformed):
        open_all(opener, [bytes(size), *pieces[1:]])


def test_a_key_of_the_wrong_length_or_suite_is_refused() -> None:
    """A short, long or absent key is refused, never fallen back from; so is one of another suite."""
    good = CONFIGS[REQUIRED]
    for key in (b"", good.public_key[:-1], good.public_key + b"\0", good.public_key[-32:]):
        with pytest.raises(Malformed):
            RequestSealer(KeyConfig(1, good.kem_id, key, good.symmetric), REQUIRED, b"\x03" * 32)
    for config in (CONFIGS[FOREIGN], KeyConfig(1, good.kem_id, good.public_key, ((2, 2), (1, 1)))):
        with pytest.raises(LocalStateError):
            RequestSealer(config, REQUIRED, b"\x03" * 32)


def test_errors_do_not_say_which_step_failed() -> None:
    """A wrong key, a wrong tag and a wrong enc read the same."""
    texts = set()
    for at in (7, 1120, -1):
        stream = bytearray(b"".join(sealed_request(REQUIRED, TEXTS)[1]))
        stream[at] ^= 1
        with pytest.raises(ProtocolError) as caught:
            open_all(RequestOpener(KEYS), [bytes(stream)])
        texts.add((type(caught.value), str(caught.value)))
    assert len(texts) == 1
