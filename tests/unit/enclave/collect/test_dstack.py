"""dstack's guest agent: a recorded answer, and every wrong one."""

import json

import pytest
from confide_enclave.collect.dstack import read_dstack
from confide_enclave.errors import DeviceUnavailable

from tests.shared import shared_path
from tests.unit.enclave.collect.agents import agent, always

DATA = bytes(range(64))


def test_a_recorded_answer_is_read_as_it_lies(tmp_path):
    """Quote and log come back byte for byte; the question is the report data in hex."""
    folder = shared_path("evidence", "tdx", "dstack_quote_report_json__20260305")
    recorded = json.loads((folder / "getquote.json").read_text())
    asked = []

    def answer(path, body):
        asked.append((path, body))
        return 200, json.dumps(recorded).encode()

    with agent(tmp_path / "dstack.sock", answer) as path:
        read = read_dstack(DATA, socket=path, timeout_s=5)
    assert read.quote == bytes.fromhex(recorded["quote"])
    assert read.event_log.decode() == recorded["event_log"]
    assert asked == [("/GetQuote", {"report_data": DATA.hex()})]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({}, "no quote"),
        ({"quote": "00"}, "no event_log"),
        ({"quote": "00", "event_log": []}, "no event_log"),
        ({"quote": 7, "event_log": "[]"}, "no quote"),
        ({"quote": "0g", "event_log": "[]"}, "not hexadecimal"),
    ],
)
def test_an_answer_that_lacks_a_part_is_refused(tmp_path, answer, said):
    """Each names what is missing."""
    with agent(tmp_path / "dstack.sock", always(200, answer)) as path, pytest.raises(DeviceUnavailable, match=said):
        read_dstack(DATA, socket=path, timeout_s=5)


def test_an_absent_socket_names_the_remedy(tmp_path):
    """Another machine, or a socket that was not mounted."""
    with pytest.raises(DeviceUnavailable, match="the socket mounted into this container"):
        read_dstack(DATA, socket=tmp_path / "dstack.sock", timeout_s=5)


def test_a_socket_that_may_not_be_used_says_so(tmp_path, monkeypatch):
    """The agent's socket often is root's alone."""
    (tmp_path / "dstack.sock").touch()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(DeviceUnavailable, match=r"dstack\.sock: permission denied; run the enclave as a user"):
        read_dstack(DATA, socket=tmp_path / "dstack.sock", timeout_s=5)


def test_the_older_agent_is_named_and_not_asked(tmp_path):
    """Its answers have another form."""
    (tmp_path / "tappd.sock").touch()
    with pytest.raises(DeviceUnavailable, match=r"only the older tappd.sock; dstack 0.5 or later"):
        read_dstack(DATA, socket=tmp_path / "dstack.sock", timeout_s=5)
