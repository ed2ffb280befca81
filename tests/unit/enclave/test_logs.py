"""What the log keeps: every name that the enclave logs under, and of sentences their beginning."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confide_enclave
import pytest
import structlog
from confide_enclave import logs
from confide_enclave.collect.gpu_check import GpuRejected
from confide_enclave.engine.gpu import Need
from confide_enclave.reload import _told
from confide_protocol.errors import ConfigError

ROOT = Path(confide_enclave.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "log"}
# What stands behind two asterisks, by what the code says there.
SPREAD = {
    "need._asdict()": set(Need._fields),
    "_told(fault)": {
        key
        for fault in (ConfigError("file", "setting", "remedy"), GpuRejected(["x"]), ValueError("x"))
        for key in _told(fault)
    },
    "{'error': error} if error else {}": {"error"},
}


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Find each call of a logger, with its file."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                logger = ast.unparse(node.func.value)
                if logger.rpartition(".")[2] in ("log", "_log", "logger", "get_logger()"):
                    yield path.relative_to(ROOT).as_posix(), node


def names(call: ast.Call) -> set[str]:
    return set().union(
        *({each.arg} if each.arg is not None else SPREAD[ast.unparse(each.value)] for each in call.keywords)
    )


def logged(**record: Any) -> dict[str, Any]:
    """Return what is left of a line, as it is written."""
    line = structlog.processors.JSONRenderer()(None, "info", logs.keep_allowed(None, "info", record))
    tree: dict[str, Any] = json.loads(line)
    return tree


def test_every_name_that_is_logged_is_kept() -> None:
    """No call gives what would be dropped, so that an operator never reads a bare event."""
    found = list(calls())
    assert {"app.py", "reload.py", "recheck.py", "endorsements.py", "engine/gpu.py", "remote/process.py"} <= {
        file for file, _ in found
    }
    dropped = {(file, call.lineno): names(call) - logs.ALLOWED for file, call in found}
    assert {place: keys for place, keys in dropped.items() if keys} == {}


def test_a_reason_is_given_where_no_request_can_be_in_it() -> None:
    """They are of settings, evidence, GPUs, endorsements; whoever adds a place has looked what it can hold."""
    events = {
        (file, ast.literal_eval(call.args[0]))
        for file, call in calls()
        if {"reason", "remedy"} & names(call) and call.args
    }
    assert events == {
        ("app.py", "evidence.failed"),
        ("endorsements.py", "endorsements.kept"),
        ("recheck.py", "gpu_check.failed"),
        ("reload.py", "reload.failed"),
        ("reload.py", "reload.refused"),
    }


@pytest.mark.parametrize("name", sorted(logs.SENTENCES))
def test_a_long_sentence_is_cut_and_says_so(name: str) -> None:
    """What fits stands whole; what does not ends with an ellipsis."""
    whole, long = "w" * logs.MAX_SENTENCE_CHARS, "w" * (logs.MAX_SENTENCE_CHARS + 1)
    assert logged(**{name: whole}) == {name: whole}
    assert logged(**{name: long}) == {name: whole[:-1] + "…"}


@pytest.mark.parametrize("name", sorted(logs.ALLOWED - logs.SENTENCES))
def test_any_other_long_text_is_dropped(name: str) -> None:
    """A text where a word, a digest or a number belongs is none of ours."""
    whole = "w" * logs.MAX_VALUE_CHARS
    assert logged(**{name: whole}) == {name: whole}
    assert logged(**{name: whole + "w"}) == {}


@pytest.mark.parametrize("value", [b"bytes", ["list"], {"a": 1}, None, ValueError("text")])
def test_what_is_not_plain_is_dropped(value: object) -> None:
    """Under a name for sentences too, and so is what has no name on the list."""
    assert logged(reason=value, count=value, prompt="text") == {}


def test_the_figures_of_a_gpu_reach_the_log() -> None:
    """As the engine logs them."""
    ready = {"event": "gpu_ready", "device": "cuda:0", **Need(1, 2, 3)._asdict()}
    assert logged(**ready) == ready
