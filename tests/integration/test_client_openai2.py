"""openai 2.x, which speaks httpx, in an environment of its own."""

import subprocess
from pathlib import Path

import pytest

from tests.fakes.stack import Stack

PYTHON = Path(__file__).resolve().parents[2] / ".venv-openai2" / "bin" / "python"


def test_openai_2_works_unmodified(stack: Stack) -> None:
    """Sync, async and streamed, through confide.OpenAI and through openai's own clients over the transport."""
    if not PYTHON.exists():
        pytest.skip("no .venv-openai2: `make test` builds it")
    key = stack.ground.write("openai2.key", stack.ground.api_key)
    script = Path(__file__).with_name("openai2_script.py")
    done = subprocess.run(
        [PYTHON, script, stack.url, key, stack.ground.policy_file], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("well 2.")
