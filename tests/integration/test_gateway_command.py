"""`confide gateway` and `confide keys` as processes: ready line, faults in one line, exit statuses, SIGTERM."""

import asyncio
import json
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from tests.fakes import upstream as fake
from tests.fakes.gateway import SEALED, ask, post, write_files
from tests.fakes.node import AttestedNode, attested_upstream

pytestmark = pytest.mark.anyio
RUN = "import sys; from confide_gateway import cli; getattr(cli, sys.argv.pop(1))(prog_name='confide')"


async def confide(*arguments: str | Path) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN, *map(str, arguments), stdout=PIPE, stderr=PIPE
    )


async def fails(*arguments: str | Path) -> str:
    """Run to the end; it must exit with 2 and one line."""
    process = await confide(*arguments)
    out, error = await asyncio.wait_for(process.communicate(), 10)
    assert (process.returncode, out) == (2, b"")
    lines = error.decode().splitlines()
    assert len(lines) == 1
    return lines[0]


async def test_it_serves_and_stops(tmp_path: Path) -> None:
    """The ready line has the real port; SIGTERM lets a stream end, then the exit status is 0 and logs are JSON."""
    node = AttestedNode()
    async with attested_upstream(node, fake.paced([b"x"] * 5, 0.1)) as upstream:
        config = write_files(tmp_path, [upstream.url], "", '[log]\nlevel = "debug"\nrequests = true\n')
        process = await confide("gateway", "--config", config)
        assert process.stdout is not None
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 10))
        assert ready["ready"] is True
        port = int(ready["url"].rpartition(":")[2])
        async with asyncio.timeout(5):
            while (await ask(port, "GET", "/readyz", key=None)).status != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        stream = asyncio.create_task(post(port, node.path, b"CANARY"))
        await asyncio.sleep(0.15)
        process.send_signal(signal.SIGTERM)
        reply = await stream
        assert (reply.body, reply.whole) == (b"xxxxx", True)
        out, error = await asyncio.wait_for(process.communicate(), 5)
        assert (process.returncode, out) == (0, b"")
        events = [json.loads(line) for line in error.decode().splitlines()]
        assert [event["event"] for event in events] == ["node_accepted", "draining", "exchange"]
        assert b"CANARY" not in error


async def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    """It names file, field and remedy."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        config = write_files(tmp_path, ["http://127.0.0.1:1"])
        port = held.getsockname()[1]
        config.write_text(config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        line = await fails("gateway", "--config", config)
        assert line == (
            f"confide: {config}: listen: cannot listen on 127.0.0.1:{port} (Address already in use); "
            "stop what holds it or choose another"
        )


async def test_faulty_files_are_one_line(tmp_path: Path) -> None:
    """Absent settings, a broken policy and an open secret."""
    assert "cannot be read" in await fails("gateway", "--config", tmp_path / "none.toml")
    config = write_files(tmp_path, ["http://127.0.0.1:1"])
    (tmp_path / "secret").chmod(0o644)
    assert "chmod 600" in await fails("gateway", "--config", config)
    (tmp_path / "policy.toml").write_text("kind = 'simulated'\n")
    assert "policy.toml: id: is missing; set it" in await fails("gateway", "--config", config)


async def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    """A key that the command printed opens the gateway; the list never shows it."""
    file = tmp_path / "k.toml"
    made = await confide("keys", "new", "--file", file, "--label", "me", "--json")
    out, _ = await made.communicate()
    new = json.loads(out)
    assert new["key"].startswith("confide-")
    listed = await confide("keys", "list", "--file", file, "--json")
    (shown,) = json.loads((await listed.communicate())[0])
    assert (shown["label"], shown["max_concurrency"]) == ("me", 8)
    assert new["key"] not in file.read_text() + json.dumps(shown)
    assert "taken" in await fails("keys", "new", "--file", file, "--label", "me")
    revoked = await confide("keys", "revoke", "--file", file, "--label", "me")
    await revoked.communicate()
    assert revoked.returncode == 0
    assert "not in the file" in await fails("keys", "revoke", "--file", file, "--label", "me")


async def test_help_explains(tmp_path: Path) -> None:
    """Each command's help says what it does and where settings are explained."""
    for arguments, text in ((("gateway", "--help"), "appraises"), (("keys", "new", "--help"), "print it once")):
        process = await confide(*arguments)
        out, _ = await process.communicate()
        assert process.returncode == 0
        assert text in out.decode()
        assert SEALED[0][1] not in out.decode()
