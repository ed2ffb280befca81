"""OHTTP key configurations."""

import pytest
from confide_protocol.errors import LocalStateError, Malformed, UnknownKey
from confide_protocol.keyconfig import KeyConfig, choose, encode_key_configs, parse_key_configs

XWING = KeyConfig(7, 0x647A, b"\x01" * 1216, ((1, 2), (1, 3)))
X25519 = KeyConfig(8, 0x0020, b"\x02" * 32, ((1, 1),))
FOREIGN = KeyConfig(9, 0x0050, b"who knows", ())
ALL = (XWING, X25519, FOREIGN)


def test_what_is_encoded_is_parsed() -> None:
    """A list with known and unknown KEMs goes both ways; the unknown one keeps its bytes."""
    encoded = encode_key_configs(ALL)
    assert parse_key_configs(encoded) == ALL
    assert encode_key_configs(parse_key_configs(encoded)) == encoded


def test_every_cut_is_refused() -> None:
    """A list that was cut anywhere but between configurations is refused."""
    encoded = encode_key_configs([X25519])
    for end in range(len(encoded)):
        with pytest.raises(Malformed):
            parse_key_configs(encoded[:end])


@pytest.mark.parametrize(
    "config",
    [
        "",  # none of its fields
        "0800",  # half a KEM id
        "080020" + "02" * 32,  # no symmetric suites
        "080020" + "02" * 32 + "0000",  # an empty list of them
        "080020" + "02" * 32 + "000200010001",  # a length that is too small
        "080020" + "02" * 32 + "000800010001",  # a length that is too large
        "080020" + "02" * 32 + "0006000100010001",  # half a pair
        "080020" + "02" * 31 + "000400010001",  # a key one byte short
        "080020" + "02" * 33 + "000400010001",  # a key one byte long
    ],
)
def test_malformed_configurations_are_refused(config: str) -> None:
    """Lengths that do not add up are refused."""
    data = bytes.fromhex(config)
    with pytest.raises(Malformed):
        parse_key_configs(len(data).to_bytes(2, "big") + data)


def test_a_repeated_key_id_is_refused() -> None:
    """Two keys cannot share an id: a request could not say which it means."""
    with pytest.raises(Malformed):
        parse_key_configs(encode_key_configs([X25519, KeyConfig(8, 0x0020, b"\x03" * 32, ((1, 1),))]))


def test_the_caller_chooses_the_suite() -> None:
    """The suite that is asked for is found wherever it stands, and nothing comes in its place."""
    assert choose(ALL, 0x0020, 1, 1) is X25519
    assert choose(ALL, 0x647A, 1, 3) is XWING
    for suite in ((0x647A, 1, 1), (0x647A, 2, 2), (0x0050, 1, 1), (0x0021, 1, 1)):
        with pytest.raises(UnknownKey):
            choose(ALL, *suite)


@pytest.mark.parametrize(
    "config", [KeyConfig(1, 0x0020, b"short", ((1, 1),)), KeyConfig(1, 0x0020, b"\x02" * 32, ())]
)
def test_an_unusable_configuration_is_not_encoded(config: KeyConfig) -> None:
    """We never publish a key of the wrong length or without a suite."""
    with pytest.raises(LocalStateError):
        encode_key_configs([config])
