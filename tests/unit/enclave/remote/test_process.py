"""A server that the enclave starts: awaited, watched, started again, stopped with its children."""

import asyncio
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from confide_protocol.errors import ConfigError, EngineError
from structlog.testing import capture_logs

from tests.unit.enclave.remote.fake import Server
from tests.unit.enclave.remote.support import (
    answer,
    model,
    opened,
    program,
    request,
    settings,
    spell,
    started,
    text,
    until,
    until_it_says,
)

pytestmark = pytest.mark.anyio


def notes(folder: Path) -> dict:
    return json.loads((folder / "notes").read_text())


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def variables(folder: Path, **more: str) -> dict[str, str]:
    ids = ",".join(map(str, spell("Paris")))
    return {"FAKE_NOTES": str(folder / "notes"), "FAKE_IDS": ids, **more}


async def test_it_is_started_with_our_arguments_and_no_secret_among_them(tmp_path, monkeypatch) -> None:
    """A private socket, nothing logged, a key in the environment alone, and of ours only what it needs."""
    monkeypatch.setenv("CONFIDE_TEST_SECRET", "canary")
    async with opened(started(fake=variables(tmp_path), arguments=("--dtype", "bfloat16"))) as engine:
        assert text(await answer(engine, request("canary"))) == "Paris"
        seen = notes(tmp_path)
        socket = Path(seen["argv"][seen["argv"].index("--uds") + 1])
        assert socket.parent.stat().st_mode & 0o777 == 0o700
    argv = seen["argv"]
    assert argv[:4] == ["--dtype", "bfloat16", "--model", str(model())]
    assert {"--no-enable-log-requests", "--no-enable-log-outputs", "--disable-uvicorn-access-log"} <= set(argv)
    assert argv[argv.index("--structured-outputs-config.backend") + 1] == "guidance"
    key = seen["environment"]["VLLM_API_KEY"]
    assert len(key) == 64
    assert key not in " ".join(argv)
    assert (seen["environment"]["HF_HUB_OFFLINE"], seen["environment"]["VLLM_HOST_IP"]) == ("1", "127.0.0.1")
    assert "CONFIDE_TEST_SECRET" not in seen["environment"]
    assert not alive(seen["pid"])
    assert not socket.parent.exists()


async def test_its_log_ends_where_prompts_begin(tmp_path) -> None:
    """What it prints while it loads is kept, 0600; what it prints after that, which may be prompts, is not."""
    log = tmp_path / "server.log"
    async with opened(started(fake=variables(tmp_path), log_file=str(log))) as engine:
        await answer(engine)
        await asyncio.sleep(0.3)
    assert log.read_text().startswith("loading\n")
    assert "canary" not in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


async def test_a_log_is_bounded(tmp_path) -> None:
    """Also while it loads."""
    log = tmp_path / "server.log"
    script = tmp_path / "chatty.py"
    script.write_text("import time\nwhile True: print('x' * 999, flush=True); time.sleep(0.001)")
    with pytest.raises(ConfigError) as caught:
        async with opened(
            settings(
                command=(program({}, str(script)),), log_file=str(log), max_log_bytes=1024, start_timeout_s=0.8
            )
        ):
            pass
    assert caught.value.field == "engine.start_timeout_s"
    assert str(log) in str(caught.value)
    assert log.stat().st_size == 1024


async def test_killed_amid_an_answer_it_comes_back(tmp_path) -> None:
    """One typed error, then `engine_loading` while it starts, then the next request is served."""
    chosen = started(fake=variables(tmp_path, FAKE_STEP_S="0.05", FAKE_LOAD_S="0.3"))
    async with opened(chosen) as engine:
        stream = engine.generate(request())
        await anext(stream)
        first = notes(tmp_path)["pid"]
        os.kill(first, signal.SIGKILL)
        with pytest.raises(EngineError) as caught:
            async for _ in stream:
                pass
        assert caught.value.code == "engine_lost"
        await until(lambda: not alive(first))
        codes = await until_it_says(engine, "")
        assert "engine_loading" in codes
        assert set(codes) <= {"engine_loading", "engine_lost"}
        assert notes(tmp_path)["pid"] != first
        assert text(await answer(engine)) == "Paris"


async def test_a_server_that_keeps_ending_is_given_up(tmp_path) -> None:
    """After so many restarts: a defined state, and every request told so at once."""
    lives = tmp_path / "lives"
    lives.write_text("1")
    chosen = started(fake=variables(tmp_path, FAKE_LIVES=str(lives)), max_restarts=2)
    async with opened(chosen) as engine:
        os.kill(notes(tmp_path)["pid"], signal.SIGKILL)
        assert not engine.failed
        await until_it_says(engine, "engine_failed")
        assert engine.failed
    assert int(lives.read_text()) == -2


async def test_a_server_is_not_started_on_other_weights(tmp_path) -> None:
    """Files that were changed since they were hashed are not read under the digest in the manifest."""
    weights, lives = Path(shutil.copytree(model(), tmp_path / "model")), tmp_path / "lives"
    lives.write_text("5")
    chosen = started(fake=variables(tmp_path, FAKE_LIVES=str(lives)))
    async with opened(chosen, weights) as engine:
        os.kill(notes(tmp_path)["pid"], signal.SIGKILL)
        await until(lambda: engine._supervisor.state != "ready")
        await until_it_says(engine, "")
        (weights / "model.safetensors").write_bytes(b"others")
        with capture_logs() as logs:
            os.kill(notes(tmp_path)["pid"], signal.SIGKILL)
            await until_it_says(engine, "engine_failed")
    assert {"event": "engine.failed", "code": "model.weights", "log_level": "error"} in logs
    assert int(lives.read_text()) == 3


async def test_it_can_be_closed_while_weights_are_hashed(tmp_path, monkeypatch) -> None:
    """Which takes minutes for large ones."""
    hashing, go_on = threading.Event(), threading.Event()
    async with opened(started(fake=variables(tmp_path))) as engine:

        def slow(*_: object) -> bytes:
            hashing.set()
            go_on.wait(10)
            return b""

        monkeypatch.setattr("confide_enclave.remote.engine.digest_weights", slow)
        os.kill(notes(tmp_path)["pid"], signal.SIGKILL)
        assert await asyncio.to_thread(hashing.wait, 5)
        async with asyncio.timeout(3):
            await engine.close()
    go_on.set()


async def test_a_server_that_was_well_for_long_starts_from_the_beginning(tmp_path) -> None:
    """Losses far apart are no reason to give up."""
    chosen = started(fake=variables(tmp_path), max_restarts=1, stable_s=0.2)
    async with opened(chosen) as engine:
        for _ in range(3):
            await asyncio.sleep(0.3)
            os.kill(notes(tmp_path)["pid"], signal.SIGKILL)
            await until(lambda: engine._supervisor.state != "ready")
            await until_it_says(engine, "")


async def test_waits_between_restarts_grow(tmp_path) -> None:
    """From restart_delay_s, twice as long each time."""
    lives = tmp_path / "lives"
    lives.write_text("1")
    chosen = started(fake=variables(tmp_path, FAKE_LIVES=str(lives)), max_restarts=3, restart_delay_s=0.1)
    async with opened(chosen) as engine:
        began_s = time.monotonic()
        os.kill(notes(tmp_path)["pid"], signal.SIGKILL)
        await until_it_says(engine, "engine_failed")
        assert time.monotonic() - began_s > 0.1 + 0.2 + 0.4


async def test_a_server_that_ends_at_once_is_a_fault_of_the_configuration(tmp_path) -> None:
    """Not tried again: the operator is there and reads it."""
    lives, log = tmp_path / "lives", tmp_path / "log"
    lives.write_text("0")
    for more, hint in (({}, "set engine.log_file"), ({"log_file": str(log)}, str(log))):
        with pytest.raises(ConfigError) as caught:
            async with opened(started(fake={"FAKE_LIVES": str(lives)}, **more)):
                pass
        assert (caught.value.file, caught.value.field) == ("enclave.toml", "engine.command")
        assert hint in str(caught.value)
    assert "no more" in log.read_text()
    assert int(lives.read_text()) == -2


async def test_a_program_that_is_not_there_is_named(tmp_path) -> None:
    """Before anything waits."""
    with pytest.raises(ConfigError) as caught:
        async with opened(settings(command=("/nowhere/vllm",))):
            pass
    assert "/nowhere/vllm cannot be started" in str(caught.value)


async def test_its_children_end_with_it(tmp_path) -> None:
    """Also those that do not listen to SIGTERM: they would hold the memory that the next one needs."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import runpy, signal, subprocess, sys\n"
        "code = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)'\n"
        f"child = subprocess.Popen([sys.executable, '-c', code])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        f"runpy.run_path({str(Path(__file__).parent / 'fake.py')!r}, run_name='__main__')\n"
    )
    async with opened(settings(command=(program(variables(tmp_path), str(script)),))) as engine:
        first = int((tmp_path / "child").read_text())
        os.kill(notes(tmp_path)["pid"], signal.SIGKILL)
        await until_it_says(engine, "")
        second = int((tmp_path / "child").read_text())
        assert first != second
        await until(lambda: _gone(first))
    await until(lambda: _gone(second))


def _gone(pid: int) -> bool:
    """Whether a process ended; one that nobody reaped yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"version": "0.99.0"}, "engine.version", "says 0.99.0"),
        ({"version": "canary\n"}, "engine.version", "something else"),
        ({"model": "other"}, "model.name", "--served-model-name"),
        ({"max_model_len": 100}, "engine.context_tokens", "holds 100"),
        ({"api_key": "k" * 40}, "engine.api_key_file", "no key"),
    ],
)
async def test_another_server_than_was_meant(changes, field, words) -> None:
    """A clear line, and nothing is served."""
    async with Server([1], **changes).at() as url:
        with pytest.raises(ConfigError) as caught:
            async with opened(settings(url=url)):
                pass
    assert caught.value.field == field
    assert words in str(caught.value)


async def test_a_key_of_the_operators(tmp_path) -> None:
    """Read from a file that others cannot read."""
    key = tmp_path / "key"
    key.write_text("k" * 40 + "\n")
    key.chmod(0o600)
    async with Server(spell("ab"), api_key="k" * 40).at() as url:
        async with opened(settings(url=url, api_key_file=str(key))) as engine:
            assert text(await answer(engine)) == "ab"
        key.chmod(0o644)
        with pytest.raises(ConfigError) as caught:
            async with opened(settings(url=url, api_key_file=str(key))):
                pass
    assert caught.value.field == "engine.api_key_file"


async def test_loading_is_waited_for_and_bounded() -> None:
    """503 from /health is a server that loads; one that never ends loading is named with its limit."""
    server = Server(spell("ab"), health=503)
    async with server.at() as url:
        with pytest.raises(ConfigError) as caught:
            async with opened(settings(url=url, start_timeout_s=0.3)):
                pass
        assert caught.value.field == "engine.start_timeout_s"
        asyncio.get_running_loop().call_later(0.3, setattr, server, "health", 200)
        async with opened(settings(url=url)) as engine:
            assert text(await answer(engine)) == "ab"


async def test_a_server_that_falls_ill_is_not_asked() -> None:
    """Of one that is not ours to start: loading until it is well again, and never given up."""
    server = Server(spell("ab"))
    async with server.at() as url, opened(settings(url=url, max_health_failures=2, max_restarts=0)) as engine:
        for _ in range(2):
            server.health = 503
            await until_it_says(engine, "engine_loading")
            server.health = 200
            await until_it_says(engine, "")


async def test_a_server_that_comes_back_as_another_is_not_used() -> None:
    """The manifest says which version answers; no other ever does."""
    server = Server(spell("ab"))
    async with server.at() as url, opened(settings(url=url, max_health_failures=1)) as engine:
        server.health, server.version = 503, "0.99.0"
        await asyncio.sleep(0.2)
        server.health = 200
        await until_it_says(engine, "engine_failed")
