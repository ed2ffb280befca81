"""A supervisor that is closed twice, or whose close is interrupted, leaves no server behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# A server that does not listen to SIGTERM, as vLLM while it loads.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""
# {how} ends it.
ENCLAVE = """
import os, signal, sys, threading, time
from confide_enclave.remote.process import Launch, Supervisor
from confide_enclave.remote.settings import RemoteSettings

async def well() -> None: pass

script, note = sys.argv[1:]
settings = RemoteSettings(kind="openai", version="0", command=("x",), stop_timeout_s=1.5)
launch = Launch((sys.executable, script, note), note + ".socket", dict(os.environ), print)
supervisor = Supervisor(settings, launch, well, well, "f")
supervisor.start()
while not os.path.exists(note):
    time.sleep(0.02)
{how}
"""
TWICE = """
first = threading.Thread(target=supervisor.close)
first.start()
time.sleep(0.3)
supervisor.close()
first.join()
"""
INTERRUPTED = """
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
supervisor.close()
"""
CANCELLED = """
cancel = lambda: supervisor._loop.call_soon_threadsafe(supervisor._task.cancel)
threading.Timer(0.3, cancel).start()
supervisor.close()
"""


@pytest.mark.parametrize("how", [TWICE, INTERRUPTED, CANCELLED], ids=["twice", "interrupted", "cancelled"])
def test_a_server_that_does_not_listen_ends_all_the_same(how, tmp_path) -> None:
    """By SIGKILL, whoever breaks the wait before it."""
    script, note = tmp_path / "stubborn.py", tmp_path / "pid"
    script.write_text(STUBBORN)
    subprocess.run(
        [sys.executable, "-c", ENCLAVE.format(how=how), str(script), str(note)], capture_output=True, timeout=30
    )
    pid = int(note.read_text())
    end_s = time.monotonic() + 2
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        if time.monotonic() > end_s:
            os.kill(pid, signal.SIGKILL)
            pytest.fail("it was left behind")
        time.sleep(0.05)
