"""Who may call what, waiting rooms, slow requests, and what the logs say."""

import asyncio
import io
import json
import logging
import os

import pytest
import structlog
from confide_attestation.evidence import Endorsements, TdxEndorsements, encode_endorsements, parse_bundle
from confide_enclave import logs
from confide_enclave.endorsements import MAX_ENDORSEMENTS_BYTES
from confide_enclave.errors import DeviceUnavailable
from confide_enclave.serving import Enclave
from confide_protocol import labels
from confide_protocol.keyset import parse_keyset, parse_manifest
from confide_protocol.statement import parse_statement

from tests.fakes.engine import ScriptedEngine
from tests.unit.enclave.support import CHAT, SECRET, FakeDevice, Node, Sealed

pytestmark = pytest.mark.anyio

NONCE = "ab" * 32


async def test_health_needs_no_secret_and_nothing_else_is_open():
    """All but health is for the gateway alone, unknown paths included."""
    node = Node()
    health = await node.call("GET", "/healthz", secret=None)
    assert (health.status, health.body) == (200, b'{"status":"ok"}')
    targets = [("GET", f"/evidence?nonce={NONCE}"), ("GET", "/.well-known/ohttp-gateway"), ("GET", "/x")]
    targets.append(("POST", f"/ohttp/{node.keyset.digest.hex()}"))
    for method, target in targets:
        for secret in (None, b"", b"wrong", SECRET[:-1], SECRET + b"x"):
            answer = await node.call(method, target, secret=secret)
            assert (answer.status, answer.body) == (401, labels.PROBLEMS[401])
    assert node.device.quotes == 0


async def test_ready_is_while_an_engine_is():
    """503 while it loads and once it is lost, without a secret; health says 200 all the while."""
    engine = ScriptedEngine()
    node = Node(engine)
    for lost, status in ((False, 200), (True, 503)):
        engine.lost = lost
        assert (await node.call("GET", "/readyz", secret=None)).status == status
        assert (await node.call("GET", "/healthz", secret=None)).status == 200


@pytest.mark.parametrize("value", ["", "Basic x", SECRET.decode(), f"bearer {SECRET.decode()}"])
async def test_the_secret_comes_as_a_bearer_token(value):
    """The header must be exactly what the gateway sends."""
    answer = await Node().call("GET", "/.well-known/ohttp-gateway", headers={"authorization": value})
    assert answer.status == 401


async def test_evidence_binds_keyset_and_manifest_to_the_nonce():
    """The bundle holds the live keyset and this manifest; the statement names them and the nonce."""
    node = Node()
    answer = await node.call("GET", f"/evidence?nonce={NONCE}")
    assert (answer.status, answer.headers["content-type"]) == (200, labels.MEDIA_EVIDENCE)
    evidence, endorsements = parse_bundle(answer.body)
    keyset = parse_keyset(evidence.keyset)
    assert keyset == node.keyset
    assert parse_manifest(evidence.manifest).digest == keyset.manifest_digest
    assert endorsements.snp.ark == b"ark"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "nonce=",
        "nonce=zz",
        "epoch=zz",
        f"time={NONCE}",
        f"nonce={NONCE}&nonce={NONCE}",
        f"nonce={NONCE}&epoch={NONCE}",
        f"epoch={NONCE}&epoch={NONCE}",
        f"nonce={NONCE.upper()}",
    ],
)
async def test_evidence_without_one_good_nonce_or_epoch_is_refused(query):
    """Freshness is never optional."""
    answer = await Node().call("GET", f"/evidence?{query}")
    assert (answer.status, answer.body) == (400, labels.PROBLEMS[400])


async def test_evidence_answers_an_epoch_as_it_is():
    """The statement carries the public value itself, and no nonce."""
    answer = await Node().call("GET", f"/evidence?epoch={NONCE}")
    evidence, _ = parse_bundle(answer.body)
    statement = parse_statement(evidence.statement)
    assert (statement.epoch, statement.nonce) == (bytes.fromhex(NONCE), None)
    assert evidence.nonce_path.steps == ()


CBOR = {"content-type": "application/cbor"}
POSTED = encode_endorsements(Endorsements(tdx=TdxEndorsements(b"collateral")))


async def test_posted_endorsements_are_offered():
    """The gateway may bring newer ones; they stand beside the next evidence."""
    node = Node()
    answer = await node.call("POST", "/endorsements", [POSTED[:9], POSTED[9:]], CBOR)
    assert (answer.status, answer.body) == (200, b'{"status":"taken"}')
    _, offered = parse_bundle((await node.call("GET", f"/evidence?nonce={NONCE}")).body)
    assert offered.tdx == TdxEndorsements(b"collateral")
    assert offered.snp.vek == b"vek"


@pytest.mark.parametrize(
    ("method", "body", "headers", "secret", "status"),
    [
        ("POST", POSTED, CBOR, b"wrong", 401),
        ("GET", b"", CBOR, SECRET, 405),
        ("POST", POSTED, {}, SECRET, 415),
        ("POST", POSTED, {**CBOR, "content-encoding": "gzip"}, SECRET, 415),
        ("POST", POSTED[:-1], CBOR, SECRET, 400),
        ("POST", b"", CBOR, SECRET, 400),
        ("POST", bytes(MAX_ENDORSEMENTS_BYTES + 1), CBOR, SECRET, 413),
    ],
)
async def test_what_is_no_endorsement_changes_nothing(method, body, headers, secret, status):
    """Strangers, other types, garbage and floods get constants."""
    node = Node()
    answer = await node.call(method, "/endorsements", [body], headers, secret=secret)
    assert (answer.status, answer.body) == (status, labels.PROBLEMS[status])
    _, offered = parse_bundle((await node.call("GET", f"/evidence?nonce={NONCE}")).body)
    assert offered.tdx is None


async def test_evidence_says_when_the_device_is_gone_or_the_room_is_full():
    """503 and 429 are constants."""
    down = await Node(device=FakeDevice(DeviceUnavailable())).call("GET", f"/evidence?nonce={NONCE}")
    assert (down.status, down.body) == (503, labels.PROBLEMS[503])
    node = Node(limits={"max_quote_waiting": 1})
    answers = await asyncio.gather(*(node.call("GET", f"/evidence?nonce={os.urandom(32).hex()}") for _ in range(3)))
    assert sorted(a.status for a in answers) == [200, 429, 429]


async def test_the_keys_are_served_exactly_as_attested():
    """The bytes of the well-known resource are those inside the keyset."""
    node = Node()
    answer = await node.call("GET", "/.well-known/ohttp-gateway")
    assert (answer.headers["content-type"], answer.body) == (labels.MEDIA_KEYS, node.keyset.ohttp_keys)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/evidence", "/.well-known/ohttp-gateway"])
async def test_other_methods_are_refused(path):
    """Reading paths take GET."""
    answer = await Node().call("POST", path)
    assert (answer.status, answer.body) == (405, labels.PROBLEMS[405])


async def test_exchanges_beyond_the_waiting_room_get_503():
    """One runs, one waits, the third is told so at once; the waiting one is then served."""
    node = Node(ScriptedEngine(step_s=0.02), limits={"max_concurrent": 1, "max_waiting": 1})
    statement = await node.statement_digest()
    sealed = [Sealed(node, statement, CHAT) for _ in range(3)]
    answers = await asyncio.gather(*(each.send(node) for each in sealed))
    assert [a.status for a in answers] == [200, 200, 503]
    assert answers[2].body == labels.PROBLEMS[503]


async def test_waiting_for_a_place_has_an_end():
    """A place that does not come free in time is 503 as well."""
    node = Node(ScriptedEngine(step_s=0.1), limits={"max_concurrent": 1, "first_byte_timeout_s": 0.05})
    statement = await node.statement_digest()
    answers = await asyncio.gather(*(Sealed(node, statement, CHAT).send(node) for _ in range(2)))
    assert sorted(a.status for a in answers) == [200, 503]


@pytest.mark.parametrize("limit", ["first_byte_timeout_s", "idle_timeout_s", "request_timeout_s"])
@pytest.mark.parametrize("crossed", [False, True])
async def test_a_slow_request_ends_by_its_limit(limit, crossed):
    """No bytes, a pause, or a trickle: 408 in clear before the boundary, sealed after it."""
    node = Node(limits={limit: 0.05})
    sealed = Sealed(node, await node.statement_digest(), CHAT)
    if limit == "first_byte_timeout_s":
        pieces = []
    else:
        pieces = [sealed.header + sealed.seal(sealed.message[:600])] if crossed else [sealed.header]
    sent = []
    never = asyncio.get_running_loop().create_future()

    async def receive():
        if pieces:
            return {"type": "http.request", "body": pieces.pop(), "more_body": True}
        if limit == "request_timeout_s":
            await asyncio.sleep(0.01)
            return {"type": "http.request", "body": b"", "more_body": True}
        return await never

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": sealed.target,
        "query_string": b"",
        "headers": [
            (b"authorization", b"Bearer " + SECRET),
            (b"content-type", labels.MEDIA_REQUEST.encode()),
        ],
    }
    await node.app(scope, receive, send)
    body = b"".join(m.get("body", b"") for m in sent)
    if crossed and limit != "first_byte_timeout_s":
        assert sent[0]["status"] == 200
        assert sealed.opener.push(body)
    else:
        assert (sent[0]["status"], body) == (408, labels.PROBLEMS[408])
    assert not node.engine.requests


@pytest.fixture
def verbose_logs():
    """Log as the command does, and put everything back afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure(stream)
    yield stream
    structlog.reset_defaults()
    root.handlers[:], _ = before
    root.setLevel(before[1])


async def test_logs_hold_neither_content_nor_sizes(verbose_logs):
    """A marked prompt, answer, stop word and failure leave no mark in the most verbose log."""
    mark = "CANARY-7f3a"
    engines = [
        ScriptedEngine([mark] * 3),
        ScriptedEngine([mark] * 3, fail_at=1, fault=RuntimeError(mark)),
        ScriptedEngine([mark] * 3, fail_at=0, fault=ValueError(mark)),
    ]
    for engine in engines:
        node = Node(engine)
        body = {"model": "scripted", "stop": [mark], "user": mark, "stream": True}
        body["messages"] = [{"role": "user", "content": mark}]
        for tree in (body, {**body, mark: 1}, {**body, "temperature": mark}, mark.encode()):
            sealed = Sealed(node, await node.statement_digest(), tree, shape="none")
            sealed.open(await sealed.send(node))
            await node.call("GET", f"/evidence?nonce={mark}")
            await node.call("GET", f"/{mark}")
    logged = verbose_logs.getvalue()
    assert mark not in logged
    lines = [json.loads(line) for line in logged.splitlines()]
    assert {"RuntimeError", "ValueError"} <= {line.get("error") for line in lines}
    assert {key for line in lines for key in line} <= logs.ALLOWED
    assert {line["path"] for line in lines if "path" in line} == {"/ohttp/{keyset}", "/evidence", "other"}


async def test_a_library_cannot_log_content(verbose_logs):
    """Foreign records keep their logger's name and the type of their exception, nothing more."""
    fault = ValueError("CANARY")
    logging.getLogger("uvicorn.error").error("CANARY %s", "CANARY", exc_info=fault)
    assert "CANARY" not in verbose_logs.getvalue()
    line = json.loads(verbose_logs.getvalue())
    assert (line["event"], line["error"]) == ("library.uvicorn.error", "ValueError")


async def test_the_lifespan_starts_and_closes_everything():
    """Startup begins rotation; shutdown closes the engine."""
    node = Node()
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = []

    async def receive():
        await asyncio.sleep(0)
        return messages.pop(0)

    async def send(message):
        sent.append(message["type"])

    await Enclave(node.app, [node.engine])({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert node.engine.closed
