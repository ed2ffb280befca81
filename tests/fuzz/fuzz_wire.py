"""Fuzz targets of the wire's parsers: arbitrary bytes raise ProtocolError or nothing."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from confide_protocol import bhttp, cbor
from confide_protocol.errors import ConfigError, Malformed, ProtocolError
from confide_protocol.hpke import HKDF_SHA256, REQUIRED, AeadId, KemId, PrivateKey, Suite
from confide_protocol.keyconfig import KeyConfig, encode_key_configs, parse_key_configs
from confide_protocol.keyset import Manifest, ServedModel, parse_keyset, parse_manifest
from confide_protocol.ohttp import RequestOpener, RequestSealer, ResponseOpener
from confide_protocol.settings import Settings, parse_toml
from confide_protocol.statement import ReportDataStatement, parse_statement

KEYS = {
    0: (REQUIRED, PrivateKey.generate(KemId.X_WING, b"\x01" * 32)),
    1: (Suite(KemId.X25519, AeadId.AES_128_GCM), PrivateKey.generate(KemId.X25519, b"\x02" * 32)),
}


class Inner(Settings):
    number: int
    names: tuple[str, ...] = ()


class Outer(Settings):
    text: str
    inner: Inner


def halves(data: bytes) -> tuple[bytes, bytes]:
    """Cut the input where its first byte says, so that splits are fuzzed too."""
    at = data[0] if data else 0
    return data[1 : 1 + at], data[1 + at :]


def binary_http(data: bytes) -> None:
    def events(*pieces: bytes) -> list[bhttp.Event] | type[ProtocolError]:
        decoder = bhttp.Decoder(max_head_bytes=4096)
        try:
            found = [event for piece in pieces for event in decoder.push(piece)] + decoder.finish()
        except ProtocolError as error:
            return type(error)
        return [event for event in found if not isinstance(event, bhttp.Content)]

    first, second = halves(data)
    assert events(first, second) == events(first + second)


def ohttp_request(data: bytes) -> None:
    opener = RequestOpener(KEYS)
    with suppress(ProtocolError):
        for piece in halves(data):
            opener.push(piece)
        opener.finish()


def ohttp_response(data: bytes) -> None:
    opener = ResponseOpener(AeadId.AES_256_GCM, b"s" * 32, b"e" * 32)
    with suppress(ProtocolError):
        for piece in halves(data):
            opener.push(piece)
        opener.finish()


def key_configs(data: bytes) -> None:
    with suppress(Malformed):
        assert encode_key_configs(parse_key_configs(data)) == data


def canonical_cbor(data: bytes) -> None:
    with suppress(Malformed):
        assert cbor.encode(cbor.decode(data)) == data


def statements(data: bytes) -> None:
    for parse in (parse_keyset, parse_manifest, parse_statement):
        with suppress(Malformed):
            assert parse(data).encoded == data


def settings(data: bytes) -> None:
    with suppress(ConfigError):
        parse_toml(data, Outer, "fuzz.toml")


def seeds() -> dict[str, list[bytes]]:
    head = bhttp.RequestHead("POST", "https", "enclave.invalid", "/v1", (("a", "b"),))
    message = bhttp.encode_head(head) + bhttp.encode_content(b"body") + bhttp.encode_end((("t", "u"),))
    config = KeyConfig(0, KemId.X_WING, KEYS[0][1].public, ((HKDF_SHA256, AeadId.AES_256_GCM),))
    sealer = RequestSealer(config, REQUIRED, b"\3" * 32)
    sealed = sealer.header + sealer.seal(b"one") + sealer.seal(message, final=True)
    manifest = Manifest("m", b"w" * 32, b"t" * 32, {"mode": "fast"}, "1", ("none",), "sev-snp")
    second = ServedModel("n", b"w" * 32, b"t" * 32, {"mode": "exact"})
    two = replace(manifest, more_models=(second,))
    statement = ReportDataStatement(b"k" * 32, 1 << 31, nonce=b"n" * 32)
    return {
        "binary_http": [b"\5" + message, b"\0" + bhttp.encode_known_length(head, b"body")],
        "canonical_cbor": [manifest.encoded, two.encoded, statement.encoded],
        "key_configs": [encode_key_configs([config])],
        "ohttp_request": [b"\x40" + sealed],
        "settings": [b'text = "a"\n[inner]\nnumber = 1\nnames = ["b"]\n'],
        "statements": [manifest.encoded, statement.encoded],
    }


TARGETS: dict[str, Callable[[bytes], None]] = {
    "binary_http": binary_http,
    "canonical_cbor": canonical_cbor,
    "key_configs": key_configs,
    "ohttp_request": ohttp_request,
    "ohttp_response": ohttp_response,
    "settings": settings,
    "statements": statements,
}
