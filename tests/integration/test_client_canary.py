"""A marked prompt and its answer pass with everything logging at its most verbose: the marks are nowhere else."""

import logging
import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from confide.transport import Transport

from tests.fakes.stack import Stack, running_stack

SLICE = 24


@pytest.fixture(scope="module")
def verbose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(
        tmp_path_factory.mktemp("verbose"), gateway_settings='\n[log]\nlevel = "debug"\nrequests = true\n'
    ) as running:
        yield running


def memory_of(pid: int) -> Iterator[bytes]:
    """Yield the writable memory of a process; skip the test where the system forbids it."""
    try:
        with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
            for line in maps:
                place, mode = line.split()[:2]
                if mode.startswith("rw"):
                    start, end = (int(part, 16) for part in place.split("-"))
                    memory.seek(start)
                    try:
                        yield memory.read(end - start)
                    except OSError:
                        continue
    except (PermissionError, FileNotFoundError):
        pytest.skip("this system does not let a process read its child's memory")


def test_the_marks_are_nowhere(verbose: Stack, caplog: pytest.LogCaptureFixture) -> None:
    """No log of any process, no metric, no file, no log record here, no byte of the gateway's memory holds them."""
    caplog.set_level(logging.DEBUG)
    mark = "canary" + secrets.token_hex(16)
    body = {
        "model": verbose.model,
        "messages": [{"role": "user", "content": f"My name is {mark}. Tell me a story about the sea."}],
        "max_tokens": 48,
        "temperature": 1,
    }
    relay = verbose.relay()
    with httpx2.Client(transport=Transport(verbose.url, relay=relay), timeout=60) as http:
        for stream in (False, True):
            answer = http.post(verbose.url + "/v1/chat/completions", json={**body, "stream": stream})
            assert answer.status_code == 200
            if not stream:
                said = answer.json()["choices"][0]["message"]["content"]
        refused = http.post(verbose.url + "/v1/chat/completions", json={**body, "seed": mark})
        assert refused.status_code == 400
    marks = [mark.encode(), said[:SLICE].encode()]
    assert len(said) >= SLICE
    metrics = httpx2.get(verbose.url + "/metrics", trust_env=False).content
    texts = {"metrics": metrics, "log records": caplog.text.encode(), "errors": refused.content}
    files = {str(path): path.read_bytes() for path in verbose.ground.folder.rglob("*") if path.is_file()}
    assert len((verbose.ground.folder / "gateway.log").read_text().splitlines()) > 3
    for name, data in (texts | files).items():
        assert not [each for each in marks if each in data], name
    for data in memory_of(verbose.ground.children["gateway"].process.pid):
        assert not [each for each in marks if each in data]
