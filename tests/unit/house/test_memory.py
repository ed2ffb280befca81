"""The search of the memory bench finds what is there, in each form and place, and nothing else."""

import re
import subprocess
import sys
from collections import Counter

import pytest

from tests.bench.memory import FORMS, OVERWRITING, Canary, search, snapshot
from tests.unit.house.test_deploy import DEPLOY

ZERO = 32
HOLDER = f"""
import ctypes, mmap, sys
import numpy as np
text = sys.stdin.readline().strip()
forms = {{
    "utf8": text.encode(),
    "utf16": text.encode("utf-16-le"),
    "ids32": np.array([{ZERO} + int(c) for c in text], "<u4").tobytes(),
    "ids64": np.array([{ZERO} + int(c) for c in text], "<u8").tobytes(),
}}
pool = mmap.mmap(-1, 1 << 20)
pool[5000 * 8 : 5000 * 8 + len(forms["ids64"])] = forms["ids64"]
del text
sys.stdin.close()
print("held", flush=True)
import time
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_a_process_holds_is_found() -> None:
    """Each form that another process holds, and what lies in shared anonymous memory, by its place."""
    held, other = Canary("prompt"), Canary("prompt")
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin
            assert process.stdout
            process.stdin.write(held.digits + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == "held\n"
            try:
                memory = snapshot(process.pid)
            except PermissionError:
                pytest.skip("this system does not let a process read its child's memory")
            found = search(memory, [held, other], ZERO)
        finally:
            process.kill()
    assert {each.canary for each in found} == {held}
    assert {each.form for each in found} == set(FORMS)
    assert Counter(each.form for each in found if each.place == "pool") == {"ids64": 1}


def test_the_image_and_the_unit_overwrite_what_is_freed() -> None:
    """The environment that the bench measures is the one that is deployed."""
    image = (DEPLOY / "enclave.Dockerfile").read_text().rpartition("\nFROM ")[2]
    unit = (DEPLOY / "systemd/confide-enclave.service").read_text()
    for key, value in OVERWRITING.items():
        assert re.search(rf"^(ENV|  ) .*\b{key}={value}(\s|$)", image, re.MULTILINE)
        assert re.search(rf"^Environment=(.* )?{key}={value}(\s|$)", unit, re.MULTILINE)
