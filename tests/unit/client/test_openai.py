"""The drop-in clients, over a wire in process."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import confide
import httpx2
import openai
import pytest
from confide import relay as relay_module
from confide.openai import NO_WEBSOCKETS
from confide.transport import Transport
from confide_protocol import labels
from confide_protocol.errors import LocalStateError, PolicyError, ReceiptInvalid, RelayRefused, RelayUnreachable

from tests.fakes.peer import JSON, Wire, a_peer, said
from tests.fakes.scene import NOW

MESSAGES: list[Any] = [{"role": "user", "content": "Where?"}]
CHOICE = b'{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"Paris."}}'
BODY = b'{"id":"1","object":"chat.completion","created":1,"model":"test","choices":[%s]}' % CHOICE


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    wire = Wire(a_peer(), httpx2)
    monkeypatch.setattr(relay_module, "fetch_evidence", wire.fetch)
    monkeypatch.setattr("confide.transport._Sealed._pool", lambda *_: wire)
    monkeypatch.setattr(relay_module.time, "time", lambda: float(NOW))
    return wire


def options(**more: Any) -> dict[str, Any]:
    return {
        "base_url": "http://gateway.test/v1",
        "api_key": "k",
        "policy": a_peer().policy,
        "allow_simulated": True,
        "memory": confide.PolicyMemory(None),
        "limits": confide.Limits(recover_s=0.2),
        **more,
    }


@pytest.fixture
def client(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> confide.OpenAI:
    client = confide.OpenAI(**options())
    monkeypatch.setattr(client._relay, "_clock", lambda: float(NOW))
    return client


def answer_plainly(wire: Wire) -> None:
    wire.reply = lambda sealed: (
        200,
        labels.MEDIA_RESPONSE,
        wire.peer.answer(sealed, [BODY], content_type=JSON, messages=[b"Paris."]),
    )


def test_a_completion_and_its_receipt(wire: Wire, client: confide.OpenAI) -> None:
    """A call as with openai's own client, and what was verified beside it."""
    answer_plainly(wire)
    assert client.attestation is None
    answer = client.chat.completions.create(model="test", messages=MESSAGES)
    assert answer.choices[0].message.content == "Paris."
    assert client.last_receipt is not None
    assert client.last_receipt.claims.model == "test"
    assert client.attestation is not None
    assert client.attestation.simulated


def test_a_streamed_completion(wire: Wire, client: confide.OpenAI) -> None:
    """A stream as with openai's own client; the receipt is there once it has ended."""
    stream = client.chat.completions.create(model="test", messages=MESSAGES, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Paris."
    assert client.last_receipt is not None


@pytest.mark.anyio
async def test_the_async_client(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """AsyncOpenAI answers plainly and streamed."""
    async with confide.AsyncOpenAI(**options()) as client:
        monkeypatch.setattr(client._relay, "_clock", lambda: float(NOW))
        stream = await client.chat.completions.create(model="test", messages=MESSAGES, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "Paris."
        answer_plainly(wire)
        answer = await client.chat.completions.create(model="test", messages=MESSAGES)
        assert answer.choices[0].message.content == "Paris."
        assert client.last_receipt is not None


def test_our_errors_surface_as_themselves(wire: Wire, client: confide.OpenAI) -> None:
    """A refusing gateway is RelayRefused, not openai's APIConnectionError, and is not asked again."""
    wire.reply = lambda sealed: (401, labels.MEDIA_PROBLEM, [])
    with pytest.raises(RelayRefused):
        client.chat.completions.create(model="test", messages=MESSAGES)
    assert len(wire.seen) == 1


def test_a_bad_receipt_ends_the_stream_in_an_error(wire: Wire, client: confide.OpenAI) -> None:
    """openai stops reading at [DONE]; the error comes before it."""
    wire.reply = lambda sealed: (
        200,
        labels.MEDIA_RESPONSE,
        wire.peer.answer(sealed, said("Par", "is."), messages=[b"London."]),
    )
    stream = client.chat.completions.create(model="test", messages=MESSAGES, stream=True)
    with pytest.raises(ReceiptInvalid):
        list(stream)


def test_a_sealed_refusal_is_openais_error(wire: Wire, client: confide.OpenAI) -> None:
    """What the enclave refuses is openai's own exception, with the enclave's message."""
    body = b'{"error":{"message":"no such model","type":"invalid_request_error","param":"model","code":"x"}}'
    wire.reply = lambda sealed: (
        200,
        labels.MEDIA_RESPONSE,
        wire.peer.answer(sealed, [body], status=404, content_type=JSON, outcome="refused"),
    )
    with pytest.raises(openai.NotFoundError, match="no such model"):
        client.chat.completions.create(model="none", messages=MESSAGES)


def test_a_policy_is_demanded() -> None:
    """No policy, a missing file: PolicyError before anything is sent."""
    with pytest.raises(PolicyError, match="policy="):
        confide.OpenAI(base_url="http://gateway.test", api_key="k")
    with pytest.raises(PolicyError, match=r"missing\.toml"):
        confide.OpenAI(**options(policy="missing.toml"))


def test_nothing_goes_round_the_seal(wire: Wire) -> None:
    """An HTTP client of the caller's own is refused; websockets lead nowhere; a base URL is demanded."""
    with pytest.raises(LocalStateError, match="bypass"):
        confide.OpenAI(**options(http_client=httpx2.Client()))
    sealing = confide.OpenAI(**options())._relay
    for more in ({"proxy": "http://127.0.0.1:9"}, {"mounts": {"http://": httpx2.HTTPTransport()}}):
        mounted = httpx2.Client(transport=Transport("http://gateway.test", relay=sealing), **more)
        with pytest.raises(LocalStateError, match="bypass"):
            confide.OpenAI(base_url="http://gateway.test", api_key="k", http_client=mounted)
    with pytest.raises(LocalStateError, match="base_url"):
        confide.OpenAI(api_key="k", policy=a_peer().policy)
    assert confide.OpenAI(**options(websocket_base_url="wss://elsewhere.test")).websocket_base_url == NO_WEBSOCKETS


def test_copies_share_the_sealed_way(wire: Wire, client: confide.OpenAI) -> None:
    """with_options() keeps transport, policy and trust."""
    copy = client.with_options(timeout=3, max_retries=1)
    assert copy._relay is client._relay
    assert str(copy.base_url) == "http://gateway.test/v1/"
    answer_plainly(wire)
    copy.chat.completions.create(model="test", messages=MESSAGES)
    assert client.last_receipt is not None


def test_a_base_url_without_v1_will_do(wire: Wire) -> None:
    """The gateway's URL is completed; retries are off unless asked for."""
    client = confide.OpenAI(**options(base_url="http://gateway.test"))
    assert str(client.base_url) == "http://gateway.test/v1/"
    assert client.max_retries == 0


@pytest.mark.anyio
async def test_no_key_of_openais_leaves(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in openai's own variables go nowhere: the gateway's is in CONFIDE_API_KEY, or the client is refused."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-own")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "authorization: Bearer sk-custom\nx-trace: 7")
    monkeypatch.delenv("CONFIDE_API_KEY", raising=False)
    for kind in (confide.OpenAI, confide.AsyncOpenAI):
        with pytest.raises(LocalStateError, match="CONFIDE_API_KEY; OPENAI_API_KEY is not read"):
            kind(**options(api_key=None))
    monkeypatch.setenv("CONFIDE_API_KEY", "ours")
    client, client_async = confide.OpenAI(**options(api_key=None)), confide.AsyncOpenAI(**options(api_key=None))
    own = confide.OpenAI(**options(api_key=None, default_headers={"Authorization": "Bearer mine"}))
    for made in (client, client_async, own):
        monkeypatch.setattr(made._relay, "_clock", lambda: float(NOW))
    answer_plainly(wire)
    for each in (client, client.with_options(timeout=3), client.with_options(shape="none")):
        each.chat.completions.create(model="test", messages=MESSAGES)
    await client_async.chat.completions.create(model="test", messages=MESSAGES)
    await client_async.close()
    own.chat.completions.create(model="test", messages=MESSAGES)
    sent = [*wire.fetched, *(dict(each.headers) for each in wire.seen)]
    assert {each["authorization"] for each in sent} == {"Bearer ours", "Bearer mine"}
    assert "sk-" not in str(sent)
    for each in (client, client_async, client.with_options(timeout=3)):
        assert (each.api_key, each.admin_api_key) == ("ours", None)
        assert each._custom_headers == {"x-trace": "7"}


def test_nobody_there_is_unreachable(tmp_path: Path) -> None:
    """On a real socket without a gateway the first call is RelayUnreachable."""
    client = confide.OpenAI(**options(base_url="http://127.0.0.1:1"))
    with pytest.raises(RelayUnreachable):
        client.models.list()


def test_without_openai_the_remedy_is_named() -> None:
    """In the base install `import confide` works, and confide.OpenAI says which extra it needs."""
    script = "import sys; sys.modules['openai'] = None; import confide; confide.Transport; confide.OpenAI"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "ImportError: confide.OpenAI needs the openai package: pip install 'confide[openai]'" in done.stderr


def test_the_package_says_what_it_offers() -> None:
    """`import confide` names its parts, loads them when asked, and knows no others."""
    for name in confide.__all__:
        assert getattr(confide, name)
    with pytest.raises(AttributeError):
        confide.Nothing  # noqa: B018
