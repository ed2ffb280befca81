"""The TypeScript client through a running gateway: openai's Node SDK, receipts, every lie refused by its code."""

import base64
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from confide.audit import audit, parse_audit_file
from confide.policy_memory import PolicyMemory
from confide.relay import Relay
from confide.transport import Transport
from confide_attestation.evidence import encode_bundle, parse_bundle
from confide_protocol import labels
from confide_protocol.errors import ConfideError
from confide_protocol.keyset import parse_keyset

from tests.fakes.hostile import Answer, Hostile, hostile_gateway
from tests.fakes.js import FOLDER, Js, running_js
from tests.fakes.peer import JSON, Peer, a_peer, differing, said
from tests.fakes.scene import NOW
from tests.fakes.stack import ANSWER, Stack, running_stack
from tests.integration.test_client_hostile import FAULTS

QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
ASKED: dict[str, Any] = {"model": "smollm2-135m-instruct", "max_tokens": 16, "temperature": 0, "messages": QUESTION}
UNOPENED = {(code, None) for code in ("decryption_failed", "malformed", "truncated")}


@pytest.fixture(scope="module")
def js() -> Iterator[Js]:
    with running_js() as running:
        yield running


@pytest.fixture(scope="module")
def snp(js: Js, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Give a stack whose evidence the package can judge itself: SEV-SNP without GPUs."""
    with running_stack(tmp_path_factory.mktemp("snp"), gpus=0) as running:
        yield running


# --- An enclave that lies, after its evidence was accepted

PARIS: dict[str, Any] = {"parts": said("Par", "is."), "messages": [b"Paris."]}
PLAIN = b'{"choices":[{"index":0,"message":{"content":"Paris."}}]}'
BODY: dict[str, Any] = {"parts": [PLAIN], "messages": [b"Paris."], "content_type": JSON}
LIES: dict[str, dict[str, Any]] = {
    **{
        name: {**PARIS, "claims": differing(**{name: b"\1" * 32})}
        for name in (
            "keyset_digest", "statement_digest", "manifest_digest", "request_commitment", "response_commitment",
            "transcript_root", "enc_digest",
        )
    },
    **{name: {**PARIS, "claims": differing(**{name: 9})} for name in ("chunk_count", "message_count")},
    **{name: {**BODY, "claims": differing(**{name: "else"})} for name in ("model", "suite", "shape", "dialect")},
    "status": {**BODY, "claims": differing(status=201)},
    "simulated": {**BODY, "claims": differing(simulated=False)},
    "issued": {**BODY, "claims": differing(issued_unix_s=NOW - 7200)},
    "nonce": {**BODY, "claims": differing(client_asserted={"nonce": b"\1" * 32})},
    "aborted": {**PARIS, "outcome": "aborted"},
    "other words": {**PARIS, "messages": [b"London."]},
    "fewer words": {**PARIS, "messages": []},
    "no receipt": {**PARIS, "trailers": lambda text: ()},
    "two receipts": {**PARIS, "trailers": lambda text: ((labels.FIELD_RECEIPT, text),) * 2},
    "padded base64": {**PARIS, "trailers": lambda text: ((labels.FIELD_RECEIPT, text + "="),)},
    "garbage receipt": {**PARIS, "trailers": lambda text: ((labels.FIELD_RECEIPT, "AAAA"),)},
    "cut receipt": {**PARIS, "trailers": lambda text: ((labels.FIELD_RECEIPT, text[:-4]),)},
    "forged signature": {**PARIS, "trailers": lambda text: ((labels.FIELD_RECEIPT, text[:-40] + "A" * 40),)},
    "no JSON": {**PARIS, "parts": [b"data: {\n\n", b"data: [DONE]\n\n"]},
    "lone surrogate": {**BODY, "parts": [rb'{"choices":[{"index":0,"message":{"content":"\ud800"}}]}']},
    "no index": {**BODY, "parts": [b'{"choices":[{"message":{"content":"Paris."}}]}']},
}  # fmt: skip


@pytest.fixture(scope="module")
def lying(js: Js) -> Iterator[tuple[Hostile, Peer]]:
    """Put an enclave of the test's own behind a gateway, and give both."""
    peer = a_peer()
    with hostile_gateway("http://nowhere.invalid") as hostile:
        hostile.get = lambda path, _: Answer(  # type: ignore[method-assign]
            200, labels.MEDIA_EVIDENCE, [peer.evidence(bytes.fromhex(path.partition("=")[2]))]
        )
        js.open(hostile.url, peer.policy_text, now=NOW, limits={"recoverMs": 300})
        yield hostile, peer


def fault_here(url: str, peer: Peer) -> tuple[str, str | None] | None:
    """Ask through this client; return the code and part of what it ends in."""
    relay = Relay(url, peer.policy, allow_simulated=True, memory=PolicyMemory(None), clock=lambda: float(NOW))
    with httpx2.Client(transport=Transport(url, relay=relay)) as client:
        try:
            client.post(url + "/v1/chat/completions", json={})
        except ConfideError as fault:
            return fault.code, getattr(fault, "part", None)
    return None


def fault_there(js: Js) -> tuple[str, str | None] | None:
    answer = js("fetch", id="it", path="/chat/completions", body={})
    fault = answer.get("error")
    return fault and (fault["code"], fault.get("part"))


def test_an_honest_enclave_is_believed(js: Js, lying: tuple[Hostile, Peer]) -> None:
    """The lies below are all that differs."""
    hostile, peer = lying
    for words in (PARIS, BODY):
        hostile.instead = lambda sealed, words=words: Answer(
            200, labels.MEDIA_RESPONSE, peer.answer(sealed, **words)
        )
        assert fault_here(hostile.url, peer) is None
        assert fault_there(js) is None


@pytest.mark.parametrize("lie", LIES)
def test_every_lie_has_the_same_code(js: Js, lying: tuple[Hostile, Peer], lie: str) -> None:
    """Both clients refuse with the same code, and name the same part of the receipt."""
    hostile, peer = lying
    hostile.instead = lambda sealed: Answer(200, labels.MEDIA_RESPONSE, peer.answer(sealed, **LIES[lie]))
    ours = fault_here(hostile.url, peer)
    assert ours is not None
    assert fault_there(js) == ours


def test_done_waits_for_the_receipt(js: Js, lying: tuple[Hostile, Peer]) -> None:
    """What ends a stream for an application is withheld when the receipt is wrong."""
    hostile, peer = lying
    lie = LIES["transcript_root"]
    hostile.instead = lambda sealed: Answer(200, labels.MEDIA_RESPONSE, peer.answer(sealed, **lie))
    answer = js("fetch", id="it", path="/chat/completions", body={"stream": True})
    assert "[DONE]" not in answer["text"]
    assert answer["error"]["code"] == "receipt_invalid"


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("words", [PARIS, BODY], ids=["stream", "body"])
def test_tampering_at_every_boundary(
    js: Js, lying: tuple[Hostile, Peer], words: dict[str, Any], fault: str
) -> None:
    """Whatever happens to any chunk, both clients end in the same code."""
    hostile, peer = lying
    for n in range(5 if words is PARIS else 2):
        hostile.instead = lambda sealed, n=n: Answer(
            200, labels.MEDIA_RESPONSE, FAULTS[fault](peer.answer(sealed, **words), n)
        )
        there, here = fault_there(js), fault_here(hostile.url, peer)
        # Without its nonce a stream is read out of step, and where that shows is chance.
        stepped = fault == "repeat" or (n == 0 and fault in ("drop", "reorder"))
        assert {there, here} <= UNOPENED if stepped else there == here, (n, there, here)


@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 409, 429, 503, 504])
def test_an_answer_in_clear(js: Js, lying: tuple[Hostile, Peer], status: int) -> None:
    """Clear bytes are never data and never shown, whatever was tried again before they were believed."""
    hostile, _ = lying
    hostile.instead = lambda sealed: Answer(status, JSON, [b'{"choices":["CANARY"]}'])
    answer = js("fetch", id="it", path="/chat/completions", body={})["error"]
    may_have_run = status in (200, 302, 409, 504)
    expected = ("outcome_unknown", None) if may_have_run else ("relay_refused", status)
    assert (answer["code"], answer.get("status")) == expected
    assert "CANARY" not in json.dumps(answer)


def test_a_stale_key_is_replaced_once_for_all(js: Js, lying: tuple[Hostile, Peer]) -> None:
    """Twenty calls meet a key that is gone: one verification, each call sealed once more, every one answered."""
    hostile, peer = lying
    js("open", id="rotated", url=hostile.url, policy=peer.policy_text, allow=True, now=NOW)
    honest, successor, alone = hostile.get, Peer(), threading.Lock()

    def answer(sealed: bytes) -> Answer:
        try:
            with alone:
                return Answer(200, labels.MEDIA_RESPONSE, successor.answer(sealed, **BODY))
        except ConfideError:
            return Answer(400, labels.MEDIA_PROBLEM, [labels.PROBLEMS[400]])

    hostile.instead = answer
    hostile.get = lambda path, _: Answer(  # type: ignore[method-assign]
        200, labels.MEDIA_EVIDENCE, [successor.evidence(bytes.fromhex(path.partition("=")[2]))]
    )
    try:
        answers = js("many", id="rotated", count=20, path="/chat/completions", body={})["answers"]
    finally:
        hostile.get = honest  # type: ignore[method-assign]
    assert answers == [200] * 20
    sent = js("sent")["sent"]
    assert sent.count("GET /evidence") == 2  # one of them when it was opened
    assert len(sent) == 2 + 40


def swapped(bundle: bytes) -> bytes:
    evidence, endorsements = parse_bundle(bundle)
    own = replace(parse_keyset(evidence.keyset), receipt_ed25519=bytes(32))
    return encode_bundle(replace(evidence, keyset=own.encoded), endorsements)


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (lambda peer, nonce: peer.evidence(bytes(32)), ["nonce"]),
        (lambda peer, nonce: swapped(peer.evidence(nonce)), ["keyset_digest"]),
    ],
    ids=["yesterday's", "swapped keyset"],
)
def test_nothing_is_sealed_to_tampered_evidence(
    js: Js, lying: tuple[Hostile, Peer], answer: Callable[[Peer, bytes], bytes], failed: list[str]
) -> None:
    """Old evidence and a keyset of the gateway's own are refused before anything is sealed."""
    hostile, peer = lying
    honest = hostile.get
    hostile.get = lambda path, _: Answer(  # type: ignore[method-assign]
        200, labels.MEDIA_EVIDENCE, [answer(peer, bytes.fromhex(path.partition("=")[2]))]
    )
    try:
        opened = js("open", id="never", url=hostile.url, policy=peer.policy_text, allow=True, now=NOW)
    finally:
        hostile.get = honest  # type: ignore[method-assign]
    assert (opened["error"]["code"], opened["error"]["failed"]) == ("appraisal_rejected", failed)
    assert js("sent")["sent"] == ["GET /evidence"]


def test_evidence_is_renewed_beside_the_calls(js: Js, lying: tuple[Hostile, Peer]) -> None:
    """Shortly before its end one renewal starts, and no call waits for it or starts another."""
    hostile, peer = lying
    hostile.instead = lambda sealed: Answer(200, labels.MEDIA_RESPONSE, peer.answer(sealed, **BODY))
    js("open", id="ending", url=hostile.url, policy=peer.policy_text, allow=True, now=NOW + 2500)
    for _ in range(3):
        assert js("fetch", id="ending", path="/chat/completions", body={})["status"] == 200
    assert js("sent")["sent"].count("GET /evidence") == 2


# --- A running gateway and a real enclave


@pytest.fixture(scope="module")
def served(js: Js, snp: Stack) -> Stack:
    """Connect the package to the real enclave."""
    opened = js(
        "open",
        id="real",
        url=snp.url,
        key=snp.ground.api_key,
        policy=snp.ground.policy_file.read_text(),
        allow=True,
    )
    assert opened["verdict"] == "accepted", opened
    return snp


@pytest.mark.parametrize("streamed", [False, True], ids=["body", "stream"])
def test_the_openai_sdk_works_unmodified(js: Js, served: Stack, streamed: bool) -> None:
    """The answer is read, its receipt verified, and an auditor here accepts the file that was kept there."""
    answer = js("openai", id="real", method="openai.chat.completions.create", body={**ASKED, "stream": streamed})
    if streamed:
        text = "".join(
            part["choices"][0]["delta"].get("content") or "" for part in answer["said"] if part["choices"]
        )
    else:
        text = answer["said"]["choices"][0]["message"]["content"]
    assert ANSWER in text
    assert answer["claims"]["outcome"] == "complete"
    for name in ("audit", "closed"):
        file = parse_audit_file(base64.b64decode(answer[name]))
        result = audit(file, allow_simulated=True)
        checks = {check.id: check.outcome.value for check in result.checks}
        words = "PASS" if name == "audit" else "SKIP"
        assert checks == {
            "receipt": "PASS", "receipt_statement": "PASS", "receipt_policy": "PASS",
            "request": words, "response": words, "transcript": words, "time": "SKIP",
        }  # fmt: skip


def test_other_resources_and_sealed_refusals(js: Js, served: Stack) -> None:
    """Models are listed; what the enclave refuses comes sealed, with its status and a receipt."""
    models = js("openai", id="real", method="openai.models.list")
    assert models["said"]["data"][0]["id"] == ASKED["model"]
    refused = js("fetch", id="real", path="/chat/completions", body={**ASKED, "model": "none"})
    assert (refused["status"], refused["claims"]["outcome"]) == (404, "refused")
    assert json.loads(refused["text"])["error"]["code"] == "model_not_found"


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
DIALECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "responses": ("responses", {"input": "Hello", "max_output_tokens": 4}),
    "completions": ("completions", {"prompt": "Hello", "max_tokens": 4}),
    "two choices": ("chat.completions", {"messages": QUESTION, "max_tokens": 4, "n": 2, "logprobs": True}),
    "tools": ("chat.completions", {"messages": QUESTION, "tools": [TOOL], "tool_choice": "required"}),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["body", "stream"])
@pytest.mark.parametrize("name", DIALECTS)
def test_every_message_is_committed_to(js: Js, served: Stack, name: str, streamed: bool) -> None:
    """Words, calls and several choices, of each dialect: this package and the enclave read the same messages."""
    resource, body = DIALECTS[name]
    body = {"model": ASKED["model"], "stream": streamed, **body}
    answer = js("openai", id="real", method=f"openai.{resource}.create", body=body)
    assert answer.get("error") is None, answer
    assert answer["claims"]["message_count"] == body.get("n", 1)
    assert audit(parse_audit_file(base64.b64decode(answer["audit"])), allow_simulated=True).holds


def test_evidence_is_verified_once(js: Js, served: Stack) -> None:
    """Many calls, one appraisal; every one of them is sealed."""
    policy = served.ground.policy_file.read_text()
    js("open", id="counted", url=served.url, key=served.ground.api_key, policy=policy, allow=True)
    for _ in range(3):
        assert js("fetch", id="counted", path="/models")["status"] == 200
    first, *rest = js("sent")["sent"]
    assert first == "GET /evidence"
    assert len(rest) == 3
    assert all(each.startswith(f"POST {labels.PATH_OHTTP}") for each in rest)


@pytest.mark.parametrize(
    ("change", "code", "failed"),
    [
        (('measurements = ["', f'measurements = ["{"00" * 48}"] #'), "appraisal_rejected", ["measurement"]),
        (('digests = ["', f'digests = ["{"00" * 32}"] #'), "appraisal_rejected", ["manifest"]),
        (('amd_ark_sha256 = "', f'amd_ark_sha256 = "{"00" * 32}" #'), "appraisal_rejected", ["ark_pin"]),
        (("not_after = 2", "not_after = 1"), "policy", None),
        (("[session]", "[sessions]"), "policy", None),
    ],
    ids=["measurement", "manifest", "root", "expired", "misspelt"],
)  # fmt: skip
def test_another_policy_refuses(
    js: Js, served: Stack, change: tuple[str, str], code: str, failed: list[str] | None
) -> None:
    """Nothing is sealed under a policy that this enclave does not meet; one that is wrong asks for nothing."""
    policy = served.ground.policy_file.read_text().replace(*change)
    answer = js("open", id="never", url=served.url, key=served.ground.api_key, policy=policy, allow=True)["error"]
    assert (answer["code"], answer.get("failed")) == (code, failed)
    assert js("sent")["sent"] == ([] if failed is None else ["GET /evidence"])


def test_simulated_hardware_needs_both_switches(js: Js, served: Stack) -> None:
    """The policy alone does not do."""
    policy = served.ground.policy_file.read_text()
    answer = js("open", id="never", url=served.url, key=served.ground.api_key, policy=policy, allow=False)
    assert answer["error"]["failed"] == ["simulated"]
    assert "pass allowSimulated: true only for a try" in answer["error"]["message"]


def test_the_page_in_a_browser(js: Js, served: Stack) -> None:
    """Headless Chromium shows which link a wrong policy breaks, then chats and shows a chain that holds."""
    key = served.ground.write("page.key", served.ground.api_key)
    question = QUESTION[0]["content"]
    command = ["node", "test/browser.js", served.url, key, served.ground.policy_file, question]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    shown = json.loads(done.stdout)
    if "skip" in shown:
        pytest.skip(shown["skip"])
    assert "error" not in shown, shown
    assert shown["xwing"]
    refused, accepted = shown["refused"], shown["accepted"]
    assert refused["verdict"].startswith("appraisal_rejected: refused: measurement")
    assert dict(refused["picture"])["The machine"] == "refused"
    assert refused["chat"], "nothing may be asked of what was refused"
    assert accepted["verdict"].startswith("Accepted")
    assert accepted["banner"], "simulated hardware is called so"
    assert ANSWER in shown["answer"]
    assert "receipt verified" in shown["answer"]
    assert shown["drawn"]
    assert shown["picture"][-1] == ["The receipt", "holds"]
    assert {state for _, state in shown["picture"]} <= {"holds", "waived"}
