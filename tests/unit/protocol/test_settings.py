"""Settings: every fault is one line that names file, field and remedy."""

import pytest
from confide_protocol.errors import ConfigError, PolicyError
from confide_protocol.settings import MAX_SETTINGS_BYTES, Settings, parse_toml
from pydantic import field_validator


class Limits(Settings):
    seconds: int
    names: tuple[str, ...] = ()


class Example(Settings):
    listen: str
    limits: Limits


GOOD = b'listen = "127.0.0.1:0"\n[limits]\nseconds = 5\n'


def test_good_settings() -> None:
    """Text becomes a frozen model."""
    settings = parse_toml(GOOD, Example, "example.toml")
    assert settings == Example(listen="127.0.0.1:0", limits=Limits(seconds=5))
    with pytest.raises(ValueError, match="frozen"):
        settings.listen = "elsewhere"


@pytest.mark.parametrize(
    ("data", "field", "remedy"),
    [
        (b"\xff", "file", "UTF-8"),
        (b"listen = ", "file", "TOML"),
        (b"a = 1\na = 2", "file", "TOML"),
        (b"a = " + b"[" * 10_000, "file", "nesting"),
        (b"a = " + b"9" * 5000, "file", "number"),
        (b"#" * (MAX_SETTINGS_BYTES + 1), "file", "larger"),
        (b'listen = "x"', "limits", "missing"),
        (b'listen = "x"\n[limits]', "limits.seconds", "missing"),
        (GOOD + b"minutes = 1", "limits.minutes", "not a known setting"),
        (b'listen = "x"\n[limits]\nseconds = "5"', "limits.seconds", "integer"),
        (b'listen = "x"\n[limits]\nseconds = 5.0', "limits.seconds", "integer"),
        (b'listen = "x"\n[limits]\nseconds = true', "limits.seconds", "integer"),
        (b"listen = 1\n[limits]\nseconds = 5", "listen", "string"),
    ],
)
def test_each_fault_names_its_field(data: bytes, field: str, remedy: str) -> None:
    """Nothing is coerced, nothing unknown is passed over."""
    with pytest.raises(ConfigError) as caught:
        parse_toml(data, Example, "example.toml")
    assert (caught.value.file, caught.value.field) == ("example.toml", field)
    assert remedy in caught.value.remedy
    assert str(caught.value).startswith(f"example.toml: {field}: ")
    assert "\n" not in str(caught.value)


def test_a_rule_of_the_models_own_is_told_in_its_words() -> None:
    """What a validator says is the remedy, without the words of the library that called it."""

    class Ruled(Settings):
        seconds: int

        @field_validator("seconds")
        @classmethod
        def _check(cls, seconds: int) -> int:
            raise ValueError("--rpc would hand the weights to other machines")

    with pytest.raises(ConfigError) as caught:
        parse_toml(b"seconds = 5", Ruled, "example.toml")
    assert str(caught.value) == "example.toml: seconds: --rpc would hand the weights to other machines"


def test_all_faults_are_told_at_once() -> None:
    """The first field leads, the others follow in the same line."""
    with pytest.raises(ConfigError) as caught:
        parse_toml(b"[limits]\nminutes = 1", Example, "example.toml")
    for field in ("listen", "limits.seconds", "limits.minutes"):
        assert field in str(caught.value)


def test_no_fault_repeats_the_value() -> None:
    """A secret in the wrong place is not printed."""
    with pytest.raises(ConfigError) as caught:
        parse_toml(b'listen = "x"\n[limits]\nseconds = "hunter2"', Example, "example.toml")
    assert "hunter2" not in str(caught.value)


def test_a_policy_has_its_own_error() -> None:
    """The caller says which error a fault is."""
    with pytest.raises(PolicyError):
        parse_toml(b"", Example, "policy.toml", PolicyError)
