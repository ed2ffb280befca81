"""Several models of one real enclave, and one of them exchanged under running clients."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from click.testing import CliRunner
from confide.audit import audit_file
from confide.cli import main
from confide_attestation.errors import AppraisalRejected
from confide_protocol.receipt import ReceiptClaims

from tests.fakes import gguf
from tests.fakes.js import running_js
from tests.fakes.stack import Stack, running_stack

FIRST = "smollm2-135m-instruct"
LIMIT_S = 60
SETTINGS = """
[limits]
max_concurrent = 128

[[more_models]]
name = "NAME"
weights = "NAME.gguf"
[more_models.engine]
context_tokens = 256
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Give a stack of two models; its policy pins the next manifest too, old.toml the first one alone."""
    folder = tmp_path_factory.mktemp("own")
    for seed, name in ((5, "second"), (6, "third")):
        (folder / f"{name}.gguf").write_bytes(gguf.toy_llama(seed))
    eager = "\n[appraisal]\ninterval_s = 1.0\nretry_s = 0.2\nhealth_interval_s = 0.5\n"
    with running_stack(
        folder, gpus=0, enclave_settings=SETTINGS.replace("NAME", "second"), gateway_settings=eager
    ) as running:
        ground = running.ground
        shutil.copy(ground.policy_file, folder / "old.toml")
        shutil.copy(folder / "enclave.toml", folder / "first.toml")
        (folder / "next.toml").write_text(settings(running).replace("second", "third"))
        said = ground.confide("manifest", "enclave", "--config", str(folder / "next.toml"), "--manifest").ready()
        ground.stop("manifest")
        text = ground.policy_file.read_text()
        old = running.relay().ready().keyset.manifest_digest.hex()
        ground.policy_file.write_text(text.replace(f'["{old}"]', f'["{old}", "{said["manifest_digest"]}"]'))
        ground.stop("gateway")
        ground.start_gateway([running.enclave_url], settings=eager)
        yield running


def settings(stack: Stack) -> str:
    return (stack.ground.folder / "enclave.toml").read_text()


def ended(stack: Stack) -> list[dict[str, Any]]:
    """Return what the log says of every change that is over."""
    lines = stack.ground.children["enclave"].log.read_text().splitlines()
    told = [line for line in map(json.loads, lines) if line["event"].startswith("reload.")]
    return [line for line in told if line["event"] != "reload.draining"]


def reload(stack: Stack, text: str) -> None:
    """Exchange the file as an operator does, and send the signal that `systemctl reload` sends."""
    file = stack.ground.folder / "enclave.toml"
    file.with_suffix(".new").write_text(text)
    file.with_suffix(".new").replace(file)
    os.kill(stack.ground.children["enclave"].process.pid, signal.SIGHUP)


def reloaded(stack: Stack, count: int) -> dict[str, Any]:
    """Wait for the log to tell of so many changes, and for the gateway to be ready; return the last."""
    deadline_s = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline_s:
        if len(ended(stack)) == count and httpx2.get(stack.url + "/readyz").status_code == 200:
            return ended(stack)[-1]
        time.sleep(0.05)
    raise AssertionError(ended(stack))


def say(client: Any, model: str) -> ReceiptClaims:
    client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hello"}], max_tokens=8, temperature=0
    )
    claims: ReceiptClaims = client.last_receipt.claims
    return claims


def test_a_model_is_exchanged_under_running_clients(own: Stack) -> None:
    """A stream ends whole under the old manifest; the next call verifies the new one, which its receipt names.

    A client whose policy pins the old manifest alone refuses the enclave from then on.
    """
    strict, count = own.openai(policy=own.ground.folder / "old.toml"), len(ended(own))
    with own.openai() as client:
        assert [say(client, name).model for name in (FIRST, "second")] == [FIRST, "second"]
        assert [each.id for each in client.models.list().data] == [FIRST, "second"]
        before = say(strict, FIRST)
        question = [{"role": "user", "content": "Tell a long story."}]
        stream = client.chat.completions.create(model=FIRST, messages=question, max_tokens=120, stream=True)
        next(stream)
        reload(own, (own.ground.folder / "next.toml").read_text())
        pieces = list(stream)
        told = client.last_receipt.claims
        assert (told.outcome, told.model, told.manifest_digest) == ("complete", FIRST, before.manifest_digest)
        assert len(pieces) > 3

        after = say(client, "third")
        done = reloaded(own, count + 1)
        assert done["event"] == "reload.done"
        assert (after.model, after.engine_mode) == ("third", "exact")
        assert after.manifest_digest.hex() == done["manifest"] != before.manifest_digest.hex()
        assert after.keyset_digest.hex() == done["keyset"] != before.keyset_digest.hex()
        assert say(client, FIRST).manifest_digest == after.manifest_digest
        # The keys are gone, the process is not: it may have run what was sealed to them.
        assert own.relay().holds(before.keyset_digest, None)
        assert not own.relay().holds(bytes(32), None)
        with pytest.raises(openai.NotFoundError, match=f"'{FIRST}', 'third'"):
            say(client, "second")
    with pytest.raises(AppraisalRejected) as refused:
        say(strict, FIRST)
    assert "manifest" in {check.id for check in refused.value.result.failed}


def test_the_command_line_asks_for_a_model_by_name(own: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """`confide chat --model`; without it, the first of the manifest."""
    monkeypatch.setenv("CONFIDE_API_KEY", own.ground.api_key)
    common = ["--url", own.url, "--policy", str(own.ground.policy_file), "--allow-simulated", "--max-tokens", "4"]
    (further,) = own.relay().ready().manifest.more_models
    for options, model in (([], FIRST), (["--model", further.model], further.model)):
        result = CliRunner().invoke(main, ["chat", "hello", *common, *options])
        assert result.exit_code == 0, result.output
        assert model in result.stderr
    result = CliRunner().invoke(main, ["chat", "hello", *common, "--model", "none"])
    assert result.exit_code != 0
    assert f"this enclave serves '{FIRST}', '{further.model}'" in result.output


def test_the_typescript_client_reads_the_same_names(own: Stack) -> None:
    """Its receipts are of the model that was asked for; a refusal's is of the first."""
    (further,) = own.relay().ready().manifest.more_models
    with running_js() as js:
        assert "error" not in js.open(own.url, own.ground.policy_file.read_text(), key=own.ground.api_key)
        for asked, named, status in (
            (FIRST, FIRST, 200),
            (further.model, further.model, 200),
            ("none", FIRST, 404),
        ):
            said = [{"role": "user", "content": "hello"}]
            answer = js(
                "fetch", id="it", path="/chat/completions", body={"model": asked, "messages": said, "max_tokens": 4}
            )
            assert answer.get("error") is None, answer
            assert (answer["status"], answer["claims"]["model"]) == (status, named)


def test_an_answer_of_the_second_model_is_run_again(own: Stack, tmp_path: Path) -> None:
    """The auditor finds it in the manifest by the receipt's name; the weights of another are refused."""
    count = len(ended(own))
    reload(own, (own.ground.folder / "first.toml").read_text())
    reloaded(own, count + 1)
    with own.openai() as client:
        say(client, "second")
        kept = audit_file(client.last_receipt, own.ground.policy_file.read_bytes(), disclose=True)
    (tmp_path / "kept.confide").write_bytes(kept.encoded)
    for name, exit_code, told in (
        ("second", 0, "PASS rerun_answer — the same answer, bit for bit"),
        ("third", 1, "FAIL rerun_weights"),
    ):
        weights = str(own.ground.folder / f"{name}.gguf")
        arguments = ["audit", str(tmp_path / "kept.confide"), "--allow-simulated", "--rerun", "--weights", weights]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == exit_code, result.stdout
        assert told in result.stdout


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        (("", ""), "file"),
        (("second.gguf", "absent.gguf"), "more_models.0.weights"),
        (('listen = "127.0.0.1:0"', 'listen = "127.0.0.1:1"'), "listen"),
    ],
)
def test_a_wrong_file_is_refused_and_nothing_changes(own: Stack, change: tuple[str, str], setting: str) -> None:
    """One line names the setting and the remedy; keys and models go on."""
    good = (own.ground.folder / "first.toml").read_text()
    count = len(ended(own))
    with own.openai() as client:
        before = say(client, FIRST).keyset_digest
        reload(own, good + "[" if setting == "file" else good.replace(*change))
        told = reloaded(own, count + 1)
        assert (told["event"], told["setting"]) == ("reload.refused", setting)
        assert told["remedy"]
        assert say(client, FIRST).keyset_digest == before


def test_a_shutdown_amid_a_change(own: Stack) -> None:
    """SIGTERM ends the process in good order, whatever a change has come to."""
    enclave = own.ground.children["enclave"].process
    reload(own, (own.ground.folder / "next.toml").read_text())
    deadline_s = time.monotonic() + LIMIT_S
    while httpx2.get(own.enclave_url + "/readyz").status_code == 200 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    enclave.terminate()
    assert enclave.wait(LIMIT_S) == 0
