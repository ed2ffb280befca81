"""Clients of EHBP that nobody here wrote, unmodified, through a gateway with two enclaves that answer it.

Their packages are made by `python -m tests.clients --make ehbp npm`; where they are not, these tests are skipped.
"""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import confide
import httpx2
import pytest
from confide_attestation.evidence import parse_bundle
from confide_protocol import labels
from confide_protocol.keyset import Keyset, parse_keyset

from tests.fakes.ehbp import part
from tests.fakes.stack import ANSWER, QUESTION, Stack, running_stack
from tests.integration.test_client_restart import free_port

ROOT = Path(__file__).resolve().parents[2]
MADE = ROOT / "build" / "clients"
SCRIPTS = ROOT / "tests" / "clients" / "scripts"
README = ROOT / "deploy" / "README.md"
PYTHON, NPM = MADE / "ehbp" / "bin" / "python", MADE / "npm" / "node_modules"
LIMIT_S = 60
ON = "\n[dialects]\nehbp = true\n"
SHORT = "\n[keyset]\nlifetime_s = 6\ngrace_s = 3\n"
GATEWAY = ON + "\n[appraisal]\ninterval_s = 1.0\nretry_s = 0.2\nhealth_interval_s = 2.0\n"
PATH = "/v1/chat/completions"
MODEL = "smollm2-135m-instruct"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 16}


class Peer:
    """A foreign client in a process of its own; each call is one command."""

    def __init__(self, name: str) -> None:
        argv = [str(PYTHON), "ehbp_peer.py"] if name == "python" else ["node", "ehbp_peer.mjs"]
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"NPM": str(NPM)}
        self._process = subprocess.Popen(
            argv, cwd=SCRIPTS, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, op: str, **options: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"op": op, **options}) + "\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return said

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def made(name: str) -> None:
    """Skip, with the reason, where a client is not installed."""
    if name == "python" and not PYTHON.exists():
        pytest.skip("tinfoil-ehbp is not installed; run: python -m tests.clients --make ehbp")
    if name == "node" and (shutil.which("node") is None or not (NPM / "ehbp").exists()):
        pytest.skip("npm's ehbp is not installed; run: python -m tests.clients --make npm (needs Node 20)")


@pytest.fixture(params=["python", "node"])
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    made(request.param)
    with closing(Peer(request.param)) as running:
        yield running


@pytest.fixture
def python() -> Iterator[Peer]:
    made("python")
    with closing(Peer("python")) as running:
        yield running


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Give a gateway before two enclaves, all three with EHBP on; the last tests break them."""
    if not PYTHON.exists() and not (NPM / "ehbp").exists():
        pytest.skip("no client of EHBP is installed; run: python -m tests.clients --make ehbp npm")
    folder = tmp_path_factory.mktemp("ehbp")
    with running_stack(folder, gpus=0, port=free_port(), enclave_settings=ON, gateway_settings=GATEWAY) as stack:
        second = stack.ground.start_enclave(name="second").ready()["url"]
        restart_gateway(stack, stack.enclave_url, second)
        # The key that is shown is the first node's once that is routed to, and the second's before.
        deadline_s = time.monotonic() + LIMIT_S
        while len(re.findall(r"node_routable\S* 1\.0", httpx2.get(stack.url + "/metrics").text)) < 2:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        yield stack


def restart_gateway(stack: Stack, *urls: str) -> None:
    old = stack.ground.children["gateway"].process
    old.send_signal(signal.SIGTERM)
    old.wait(LIMIT_S)
    stack.ground.start_gateway(urls, int(stack.url.rpartition(":")[2]), GATEWAY)


def shown_keyset(stack: Stack) -> Keyset:
    """Fetch evidence of the very keyset whose key is shown, as SPEC 11.2 says."""
    with httpx2.Client(trust_env=False, base_url=stack.url, timeout=30) as client:
        shown = client.get(labels.PATH_EHBP_KEYS)
        assert (shown.status_code, shown.headers["content-type"]) == (200, labels.MEDIA_KEYS)
        digest_hex = shown.headers[labels.FIELD_KEYSET]
        bearer = {"authorization": f"Bearer {stack.ground.api_key}"}
        got = client.get(f"/evidence?nonce={os.urandom(32).hex()}&keyset={digest_hex}", headers=bearer)
    keyset = parse_keyset(parse_bundle(got.content)[0].keyset)
    assert keyset.digest.hex() == digest_hex
    assert keyset.ehbp_key is not None
    assert keyset.ehbp_key in shown.content
    return keyset


def executions(stack: Stack) -> int:
    """Count what the nodes answered by EHBP, once their logs have come to rest: a line follows its answer."""
    before, found = -1, _answered(stack)
    while before != found:
        time.sleep(0.3)
        before, found = found, _answered(stack)
    return found


def _answered(stack: Stack) -> int:
    found = 0
    for name in ("enclave", "second"):
        for line in (stack.ground.folder / f"{name}.log").read_text().splitlines():
            said = json.loads(line) if line.startswith("{") else {}
            found += said.get("path", "").startswith(labels.PATH_API) and said.get("status") == 200
    return found


def until_stale(peer: Peer) -> None:
    """Post until the client is told to fetch the key anew; a node that was just lost may answer 503 before."""
    deadline_s = time.monotonic() + LIMIT_S
    while (got := peer("post", path=PATH, body={**BODY, "max_tokens": 1})) != {"error": "KEY_CONFIG_MISMATCH"}:
        assert got.get("status") in (200, 503), got
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


def discover(stack: Stack, peer: Peer) -> dict[str, Any]:
    """Have the client fetch the key; for a moment no node may be verified."""
    deadline_s = time.monotonic() + LIMIT_S
    while "error" in (said := peer("discover", url=stack.url, key=stack.ground.api_key)):
        assert time.monotonic() < deadline_s, said
        time.sleep(0.2)
    return said


def test_a_foreign_client_reads_an_answer_whose_receipt_holds(two: Stack, peer: Peer) -> None:
    """Discovery, a chat, a stream: read as OpenAI's; the receipts verify under the attested keyset of the key."""
    keyset = shown_keyset(two)
    assert keyset.ehbp_key is not None
    assert discover(two, peer)["key"] == keyset.ehbp_key.hex()
    for stream in (False, True):
        got = peer("post", path=PATH, body={**BODY, "stream": stream})
        assert got["status"] == 200
        said = part(base64.b64decode(got["body"]))
        assert ANSWER in (said.text if stream else said.body.decode())
        body = {**BODY, "stream": stream}
        plain = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        media = "text/event-stream" if stream else "application/json"
        claims = said.check(keyset, plain, 200, media, PATH)
        assert (claims.dialect, claims.outcome) == (labels.DIALECT_EHBP, "complete")


def test_a_client_may_start_from_the_key_that_evidence_vouches_for(
    two: Stack, python: Peer, tmp_path: Path
) -> None:
    """A key that nobody on the way chose, by the lines of the manual; of a refused enclave they print none."""
    if not all(map(shutil.which, ("curl", "jq", "openssl"))):
        pytest.skip("the manual's lines want curl, jq and openssl")
    lines = README.read_text().partition("## Clients of EHBP")[2].partition("```sh\n")[2].partition("```")[0]
    shutil.copy(two.ground.policy_file, tmp_path / "policy.toml")
    env = os.environ | {
        "URL": two.url, "KEY": two.ground.api_key, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    }  # fmt: skip

    def run(script: str) -> tuple[int, str]:
        done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)
        return done.returncode, done.stdout

    assert run(lines) == (4, ""), "the policy is of kind simulated: refused"
    allowed = lines.replace("--policy policy.toml", "--policy policy.toml --allow-simulated")
    assert run(allowed.replace("$N&", f"{'0' * 64}&")) == (4, ""), "evidence for another's nonce"
    status, key = run(allowed)
    assert (status, len(key)) == (0, 65)
    assert python("start", url=two.url, key=two.ground.api_key, public=key.strip()) == {"key": key.strip()}
    got_back = python("post", path=PATH, body=BODY)
    assert ANSWER in part(base64.b64decode(got_back["body"])).body.decode()


def test_openai_works_over_it(two: Stack, peer: Peer) -> None:
    """OpenAI's SDK over the foreign transport: chat, stream, Responses, models, refusals; receipts pass by."""
    discover(two, peer)
    said = peer("openai", model=MODEL, question=QUESTION)
    assert ANSWER in said["plain"]
    assert said["streamed"] == said["plain"] == said.get("async", said["plain"])
    assert said["receipt"] is True
    assert said.get("responses", True) is True
    assert said.get("usage", 1) > 0
    assert said["models"] == [MODEL]
    assert said["refused"] == "model_not_found"


def test_the_packages_own_client_works(two: Stack, python: Peer) -> None:
    """tinfoil-ehbp's convenience client, whole and streaming; the stream comes in many pieces."""
    discover(two, python)
    said = python("convenience", path=PATH, body=BODY)
    assert ANSWER in part(base64.b64decode(said["body"])).body.decode()
    assert said["pieces"] > 3


def test_a_replay_is_refused_and_runs_nothing(two: Stack, python: Peer) -> None:
    """What the client sent once more, also to another path: the constant 400."""
    discover(two, python)
    assert python("post", path=PATH, body=BODY)["status"] == 200
    before = executions(two)
    for path in (PATH, "/v1/completions"):
        again = python("replay", path=path)
        assert (again["status"], base64.b64decode(again["body"])) == (400, labels.PROBLEMS[400])
    assert executions(two) == before


@pytest.mark.parametrize("harm", ["changed", "swapped", "dropped"])
def test_a_harmed_answer_does_not_open(two: Stack, python: Peer, harm: str) -> None:
    """A frame that was changed, swapped or dropped before others: the client's own error."""
    discover(two, python)
    got = python("post", path=PATH, body={**BODY, "stream": True}, harm=harm)
    assert got == {"error": "AEAD_DECRYPT_FAILED"}


def test_a_cut_answer_is_unseen_by_the_client_and_has_no_receipt(two: Stack, python: Peer) -> None:
    """EHBP has no end: half an answer looks whole to its client. Who demands the receipt sees it."""
    discover(two, python)
    got = python("post", path=PATH, body={**BODY, "stream": True}, harm="cut")
    assert got["status"] == 200
    half = base64.b64decode(got["body"])
    assert b"data: " in half
    assert b"[DONE]" not in half
    with pytest.raises(AssertionError):
        part(half)
    torn = python("post", path=PATH, body={**BODY, "stream": True}, harm="torn")
    assert torn == {"error": "FRAMING_TRUNCATED"}


@pytest.mark.parametrize(
    ("harm", "wanted"),
    [
        ("request changed", {"error": "KEY_CONFIG_MISMATCH"}),
        ("request cut", {"status": 400}),
        ("request torn", {"status": 400}),
    ],
)
def test_a_harmed_request_runs_nothing(two: Stack, python: Peer, harm: str, wanted: dict[str, Any]) -> None:
    """A changed request is one that no key opens; a cut one is no request."""
    discover(two, python)
    before = executions(two)
    got = python("post", path=PATH, body=BODY, harm=harm)
    assert {name: got[name] for name in wanted} == wanted
    assert executions(two) == before


def test_a_prompt_in_clear_is_refused_by_name(two: Stack) -> None:
    """A plain OpenAI client is told what to use, and no enclave hears of it."""
    before = [(two.ground.folder / f"{name}.log").read_text().count("\n") for name in ("enclave", "second")]
    with httpx2.Client(trust_env=False, base_url=two.url, timeout=30) as client:
        got = client.post(PATH, json=BODY, headers={"authorization": f"Bearer {two.ground.api_key}"})
    assert got.status_code == 415
    assert got.json()["error"]["code"] == "clear_body_refused"
    for name, lines in zip(("enclave", "second"), before, strict=True):
        news = (two.ground.folder / f"{name}.log").read_text().splitlines()[lines:]
        assert not [line for line in news if labels.PATH_API in line]


def test_our_own_client_never_uses_it(two: Stack) -> None:
    """Where both are offered, and where only EHBP would go through, the SDK seals by OHTTP or not at all."""
    client = two.openai()
    before = executions(two)
    client.chat.completions.create(**BODY)
    assert client.last_receipt is not None
    assert client.last_receipt.claims.dialect == labels.DIALECT_CHUNKED_OHTTP
    assert executions(two) == before


def test_a_policy_that_pins_another_manifest_refuses_a_node_that_offers_it(two: Stack) -> None:
    """The manifest says that EHBP is on: who pinned it without is not talked into it."""
    manifest = two.relay().ready().manifest
    assert manifest.engine["ehbp"] is True
    engine = {name: value for name, value in manifest.engine.items() if name != "ehbp"}
    without = replace(manifest, engine=engine)
    text = two.ground.policy_file.read_text()
    assert manifest.digest.hex() in text
    policy = two.ground.write("without.toml", text.replace(manifest.digest.hex(), without.digest.hex()))
    with pytest.raises(confide.AppraisalRejected):
        two.openai(policy=policy).models.list()


def test_a_lost_node_is_a_stale_key_and_then_the_other_nodes(two: Stack, python: Peer) -> None:
    """When the node whose key was fetched is gone, 422 says so, and the next key is the other node's."""
    first = discover(two, python)["key"]
    two.ground.stop("enclave")
    until_stale(python)
    assert discover(two, python)["key"] != first
    assert python("post", path=PATH, body=BODY)["status"] == 200


def test_a_rotated_key_is_stale_and_the_next_one_is_shown(two: Stack, peer: Peer) -> None:
    """Keys that live for seconds: 422, fetch, and the call goes through; the receipt is of the new keyset."""
    if "short" not in two.ground.children:
        config = (two.ground.folder / "enclave.toml").read_text() + SHORT
        two.ground.write("short.toml", config)
        restart_gateway(two, two.ground.start_enclave("short.toml", "short").ready()["url"])
    first = discover(two, peer)["key"]
    until_stale(peer)
    assert discover(two, peer)["key"] != first
    assert peer("post", path=PATH, body=BODY)["status"] == 200
