"""Typed TOML with closed keys: text in, model out, every fault named by file, field and remedy."""

import tomllib
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from confide_protocol.errors import ConfigError

MAX_SETTINGS_BYTES = 256 * 1024


class Settings(BaseModel):
    """Base of every settings and policy model: closed, frozen, without coercion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


M = TypeVar("M", bound=BaseModel)


def parse_toml(data: bytes, model: type[M], file: str, error: type[ConfigError] = ConfigError) -> M:
    """Parse TOML bytes into `model`.

    `file` is only a name for messages. All faults are reported in one line, first fault's field first.
    Raises: `error` (ConfigError or PolicyError).
    """
    if len(data) > MAX_SETTINGS_BYTES:
        raise error(file, "file", f"is larger than {MAX_SETTINGS_BYTES} bytes; is it the right file?")
    try:
        tree = tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise error(file, "file", "is not UTF-8 text; expected TOML") from None
    except tomllib.TOMLDecodeError as fault:
        raise error(file, "file", f"is not TOML: {fault}") from None
    except (ValueError, RecursionError):
        raise error(file, "file", "is not TOML: a number or the nesting is out of bounds") from None
    try:
        return model.model_validate(tree)
    except ValidationError as fault:
        first, *more = (
            (_place(tree, item["loc"], item["type"]) or "file", _remedy(item["type"], item["msg"]))
            for item in fault.errors(include_input=False, include_url=False)
        )
        others = "".join(f"; {field}: {remedy}" for field, remedy in more)
        raise error(file, first[0], first[1] + others) from None


def _place(tree: object, location: tuple[int | str, ...], kind: str) -> str:
    """Name a field as the file does: pydantic's location also holds the tags of unions."""
    parts: list[str] = []
    for part in location:
        within = part in tree if isinstance(tree, dict) else isinstance(tree, list) and isinstance(part, int)
        if within:
            tree = tree[part]  # type: ignore[index]
        elif kind != "missing" or part != location[-1]:
            continue
        parts.append(str(part))
    return ".".join(parts)


def _remedy(kind: str, message: str) -> str:
    if kind == "missing":
        return "is missing; set it"
    if kind == "extra_forbidden":
        return "is not a known setting; remove it or mend its spelling"
    # A rule of our own may begin with a name.
    return said if (said := message.removeprefix("Value error, ")) != message else said[:1].lower() + said[1:]
