"""Oblivious HTTP: the published exchange of the chunked draft, byte for byte, and RFC 9458 Appendix A."""

import json
from typing import Any

from confide_protocol import bhttp, hpke
from confide_protocol.hpke import AeadId, KemId, PrivateKey, Suite
from confide_protocol.keyconfig import KeyConfig, encode_key_configs, parse_key_configs
from confide_protocol.ohttp import RequestOpener, RequestSealer

from tests.shared import shared_path
from tests.vectors.conftest import Tally
from tests.vectors.test_hpke import raw

FOREIGN = Suite(KemId.X25519, AeadId.AES_128_GCM)


def load(name: str) -> dict[str, Any]:
    return json.loads(shared_path("vectors", "ohttp", name).read_text())


def key_config(vector: dict[str, Any]) -> KeyConfig:
    encoded = raw(vector, "keyConfig")
    listed = len(encoded).to_bytes(2, "big") + encoded
    (config,) = parse_key_configs(listed)
    assert encode_key_configs([config]) == listed
    assert config == KeyConfig(1, KemId.X25519, raw(vector, "pkR"), ((1, 1), (1, 3)))
    return config


def test_the_chunked_exchange(tally: Tally) -> None:
    """Both sealers give the published bytes, both openers the published plaintexts."""
    vector = load("chunked-ohttp-appendix.verified.json")
    client = RequestSealer(key_config(vector), FOREIGN, raw(vector, "skE"))
    assert client.enc == raw(vector, "enc")
    sealed = [client.seal(raw(chunk, "plaintext"), final=chunk["final"]) for chunk in vector["requestChunks"]]
    request = client.header + b"".join(sealed)
    assert request == raw(vector, "encapsulatedRequest")

    enclave = RequestOpener({1: (FOREIGN, PrivateKey.from_raw(raw(vector, "skR")))})
    opened = [*enclave.push(request), *enclave.finish()]
    assert opened == [raw(chunk, "plaintext") for chunk in vector["requestChunks"][:-1]]
    head, end = read_message(b"".join(opened))
    assert head == bhttp.RequestHead("GET", "https", "example.com", "/")
    assert end == bhttp.EndOfMessage()

    answer = enclave.response_sealer(raw(vector, "responseNonce"))
    sealed = [answer.seal(raw(chunk, "plaintext"), final=chunk["final"]) for chunk in vector["responseChunks"]]
    response = answer.prefix + b"".join(sealed)
    assert response == raw(vector, "encapsulatedResponse")
    opener = client.response_opener()
    assert [*opener.push(response), *opener.finish()] == [b"\x01", b"\x40\xc8"]
    assert opener.complete
    assert read_message(b"\x01\x40\xc8") == [bhttp.ResponseHead(200), bhttp.EndOfMessage()]
    tally("ohttp/chunked-ohttp-appendix.verified.json", None)


def test_rfc_9458_appendix_a(tally: Tally) -> None:
    """What chunked OHTTP shares with RFC 9458 matches its example: keys, header, bhttp, response keys.

    Its media types are unchunked and so not spoken here; the example is opened with the parts beneath.
    """
    vector = load("rfc9458-appendix-a.verified.json")
    key_config(vector)
    request = raw(vector, "encapsulatedRequest")
    enc, sealed = request[7:39], request[39:]
    assert enc == raw(vector, "enc")
    key = PrivateKey.from_raw(raw(vector, "skR"))
    context = hpke.setup_base_recipient(FOREIGN, key, enc, raw(vector, "requestInfo"))
    assert context.open(b"", sealed) == raw(vector, "request")
    assert read_message(raw(vector, "request"))[0] == bhttp.RequestHead("GET", "https", "example.com", "/")
    secret = context.export(b"message/bhttp response", 16)
    assert secret == raw(vector, "secret")
    prk = hpke.hkdf_extract(enc + raw(vector, "responseNonce"), secret)
    assert prk == raw(vector, "prk")
    aead_key, aead_nonce = hpke.hkdf_expand(prk, b"key", 16), hpke.hkdf_expand(prk, b"nonce", 12)
    assert (aead_key, aead_nonce) == (raw(vector, "aeadKey"), raw(vector, "aeadNonce"))
    response = raw(vector, "encapsulatedResponse")
    opener = hpke.Opener(FOREIGN.aead, aead_key, aead_nonce)
    assert response[:16] == raw(vector, "responseNonce")
    assert opener.open(b"", response[16:]) == raw(vector, "response")
    tally("ohttp/rfc9458-appendix-a.verified.json", None)


def read_message(data: bytes) -> list[bhttp.Event]:
    decoder = bhttp.Decoder()
    return decoder.push(data) + decoder.finish()
