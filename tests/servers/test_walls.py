"""The server dies amid an answer and comes back; whatever it wrote, no prompt is in it. The last file to run."""

import os
import secrets
import signal
import time
from pathlib import Path
from typing import Any

import confide
import openai
import pytest
from confide_enclave.engine.tokens import Tokens
from confide_enclave.remote.card import read_vocabulary
from confide_protocol.errors import RelayRefused

from tests.fakes.stack import ANSWER, ask
from tests.servers.peers import Peer
from tests.servers.stack import RemoteStack, children

RESTART_TIMEOUT_S = 880.0
MARK = "canary" + secrets.token_hex(12)
MARKED = [{"role": "user", "content": f"My name is {MARK}. Tell me a long story about the sea and say my name."}]


def wait(client: confide.OpenAI) -> tuple[set[tuple[int, str | None]], Any]:
    """Ask until there is an answer; return it with the refusals before, the gateway's as `clear`."""
    codes: set[tuple[int, str | None]] = set()
    end_s = time.monotonic() + RESTART_TIMEOUT_S
    while time.monotonic() < end_s:
        try:
            return codes, ask(client)
        except openai.APIStatusError as fault:
            codes.add((fault.status_code, fault.code))
        except RelayRefused as fault:
            codes.add((fault.status, "clear"))
        time.sleep(1)
    raise TimeoutError


def test_killed_amid_an_answer_it_comes_back(stack: RemoteStack) -> None:
    """One typed error and a receipt of it; 503s while it loads, sealed and then the gateway's; then an answer."""
    first = stack.server_pid
    below = children(first)
    endless = {"messages": MARKED, "max_tokens": 1500, "logit_bias": {"0": -100, "2": -100}}
    ended = stack.interrupted(endless, 5, lambda: os.kill(first, signal.SIGKILL))
    assert ended == "engine_lost"
    began_s = time.monotonic()
    with stack.openai(max_retries=0) as client:
        codes, answer = wait(client)
        assert codes <= {(503, "engine_loading"), (503, "engine_lost"), (503, "clear")}
        # The gateway looks at its nodes every five seconds.
        assert (503, "clear") in codes or time.monotonic() - began_s < 15
        assert ANSWER in answer.choices[0].message.content
    assert stack.server_pid != first
    assert not [pid for pid in (first, *below) if Path(f"/proc/{pid}/cmdline").exists()]


def test_the_marks_are_nowhere(stack: RemoteStack, peer: Peer, server_log: Path, weights: Path) -> None:
    """Not as text and not as token ids: in the server's output, in its arguments, in any log of the stack."""
    with stack.openai() as client:
        ask(client, messages=MARKED, max_tokens=24)
        with pytest.raises(openai.BadRequestError):
            ask(client, messages=MARKED, temperature=9)
        schema = {"type": "json_schema", "json_schema": {"name": MARK, "schema": {"enum": [MARK]}}}
        assert (
            MARK in ask(client, messages=MARKED, max_tokens=64, response_format=schema).choices[0].message.content
        )
    said = server_log.read_text(errors="replace")
    assert peer.says in said
    ids = Tokens(read_vocabulary(weights)).encode(MARK)
    numbers = [", ".join(map(str, ids[1:8])), ",".join(map(str, ids[1:8]))]
    logs = [said, *(file.read_text(errors="replace") for file in stack.ground.folder.glob("*.log"))]
    assert len(logs) > 3
    for each in (MARK, *numbers):
        assert not [log for log in logs if each in log]
    server = stack.server_pid
    for pid in (server, *children(server)):
        shown = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert MARK.encode() not in shown
        assert b"--api-key" not in shown
