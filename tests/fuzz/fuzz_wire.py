"""Fuzz targets of the wire's parsers: arbitrary bytes raise ProtocolError or nothing."""

from collections.abc import Callable
from contextlib import suppress

from confide_protocol import bhttp, cbor
from confide_protocol.errors import ConfigError, Malformed, ProtocolError
from confide_protocol.hpke import REQUIRED, AeadId, KemId, PrivateKey, Suite
from confide_protocol.keyconfig import encode_key_configs, parse_key_configs
from confide_protocol.keyset import parse_keyset, parse_manifest
from confide_protocol.ohttp import RequestOpener, ResponseOpener
from confide_protocol.settings import Settings, parse_toml
from confide_protocol.statement import parse_statement

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


TARGETS: dict[str, Callable[[bytes], None]] = {
    "binary_http": binary_http,
    "canonical_cbor": canonical_cbor,
    "key_configs": key_configs,
    "ohttp_request": ohttp_request,
    "ohttp_response": ohttp_response,
    "settings": settings,
    "statements": statements,
}
