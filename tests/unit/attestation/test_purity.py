"""A judgement reads what it is given and nothing else: no socket, no file, no clock, no environment, no process.

A judgement runs under an audit hook and with every clock replaced; what our own code, or a library for it, asks of
the machine fails the test. Modules are loaded before, since importing reads files.
What native code does by itself is not seen here: dcap-qvl and OpenSSL are given the time as an argument.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
GUARD = '''
import datetime, os, random, secrets, sys, time

class Impure(BaseException):
    """Not an Exception, so that no verifier swallows it."""

armed = False
FORBIDDEN = ("socket.", "open", "os.", "subprocess.", "shutil.", "glob.", "pathlib.", "urllib.", "http.", "ssl.",
             "tempfile.", "sqlite3.", "ctypes.dlopen", "import")

def audit(event, arguments):
    if armed and event.startswith(FORBIDDEN):
        raise Impure(event)

def refuse(name):
    def refused(*_, **__):
        if armed:
            raise Impure(name)
        return kept[name](*_, **__)
    return refused

kept = {}
for module, names in (
    (time, ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "gmtime",
            "localtime", "sleep", "process_time", "clock_gettime", "ctime")),
    (os, ("getenv", "urandom", "getpid", "getcwd")),
    (random, ("random", "randint", "choice", "getrandbits")),
    (secrets, ("token_bytes", "randbits")),
):
    for name in names:
        kept[f"{module.__name__}.{name}"] = getattr(module, name)
        setattr(module, name, refuse(f"{module.__name__}.{name}"))

class Environment(type(os.environ)):
    def __getitem__(self, key):
        if armed:
            raise Impure("os.environ")
        return super().__getitem__(key)
    def __iter__(self):
        if armed:
            raise Impure("os.environ")
        return super().__iter__()

os.environ.__class__ = Environment

class Moment(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        if armed:
            raise Impure("datetime.now")
        return super().now(tz)
    @classmethod
    def utcnow(cls):
        if armed:
            raise Impure("datetime.utcnow")
        return super().utcnow()
    @classmethod
    def today(cls):
        if armed:
            raise Impure("datetime.today")
        return super().today()

class Day(datetime.date):
    @classmethod
    def today(cls):
        if armed:
            raise Impure("date.today")
        return super().today()

datetime.datetime, datetime.date = Moment, Day
sys.addaudithook(audit)
'''
JUDGE = """
from tests.conformance import bundles, simulated
cases = [*simulated.cases(), *bundles.cases()]
names = []
for case in cases:
    # Once before: what is imported late is no part of a judgement. Then with nothing remembered.
    case.judge(case.files, case.now_unix_s, case.nonce)
    for name, module in list(sys.modules.items()):
        if name.startswith("confide_attestation."):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()
    broken = {role: data[:-1] + bytes((data[-1] ^ 1,)) for role, data in case.files.items()}
    for files, refused in ((case.files, False), (broken, True), ({role: b"" for role in case.files}, True)):
        armed = True
        try:
            judged = case.judge(files, case.now_unix_s, case.nonce)
        finally:
            armed = False
        assert judged.refused is refused, (case.name, judged.failed)
    names.append(case.name)
print("judged:", *names)
"""
BREACHES = {
    "open": "open('/dev/null')",
    "socket.__new__": "import socket\nsocket.socket()",
    "time.time": "time.time()",
    "time.monotonic": "time.monotonic()",
    "datetime.now": "datetime.datetime.now()",
    "date.today": "datetime.date.today()",
    "os.environ": "os.environ.get('HOME')",
    "os.environ ": "list(os.environ)",
    "os.getenv": "os.getenv('HOME')",
    "os.urandom": "os.urandom(1)",
    "os.listdir": "os.listdir('/')",
    "subprocess.Popen": "import subprocess\nsubprocess.Popen(['true'])",
}


def run(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120
    )


def test_a_judgement_asks_nothing_of_the_machine() -> None:
    """Every room, alone and in whole bundles, on evidence that is good, changed and empty."""
    done = run(GUARD + JUDGE)
    assert done.returncode == 0, done.stderr[-2000:]
    kinds = {name.split("/")[0] for name in done.stdout.split()[1:]}
    assert kinds == {"snp", "tdx", "nvidia", "azure", "eventlog", "nras", "bundle"}


@pytest.mark.parametrize("name", BREACHES)
def test_the_guard_bites(name: str) -> None:
    """Each kind of breach, as a verifier would commit it, ends the run by name."""
    code = f"import socket, subprocess\n{GUARD}\narmed = True\ntry:\n{textwrap.indent(BREACHES[name], '    ')}\n"
    code += "except Exception:\n    pass\n"
    done = run(code)
    assert done.returncode != 0
    assert f"Impure: {name.strip()}" in done.stderr
