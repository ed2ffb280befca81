"""Several models behind one enclave: who answers, what its receipt says, and what no other model is told."""

import asyncio
import os
from typing import Any

import pytest
from confide.naming import expected_model
from confide_enclave.node import assemble
from confide_enclave.settings import EnclaveSettings

from tests.fakes.engine import ScriptedEngine
from tests.unit.enclave.support import SECRET, Clock, FakeDevice, Node, Opened, Sealed

pytestmark = pytest.mark.anyio
SAY = {"messages": [{"role": "user", "content": "what is said?"}]}
PATHS = {
    "/v1/chat/completions": SAY,
    "/v1/completions": {"prompt": "what is said?"},
    "/v1/responses": {"input": "what is said?"},
}


class TwoModels(Node):
    """`exact` says one thing and `fast` another."""

    def __init__(self, capacity: int = 64, step_s: float = 0.0) -> None:
        self.engines = {
            "exact": ScriptedEngine(["one"], name="exact", mode="exact", capacity=capacity, step_s=step_s),
            "fast": ScriptedEngine(["two"], name="fast"),
        }
        self.device, self.clock, self.digest = FakeDevice(), Clock(), b""
        tree = {"gateway_secret_file": "x", "platform": "simulated-sev-snp", "device_socket": "x"}
        self.settings = EnclaveSettings.model_validate(
            tree | {"model": {"name": "exact"}, "more_models": [{"name": "fast"}]}
        )
        self.app, self.holder, self.manifest = assemble(
            self.settings,
            list(self.engines.values()),
            self.device,
            SECRET,
            clock=self.clock,
            random=os.urandom,
        )

    async def ask(self, body: Any, path: str = "/v1/chat/completions", **options: Any) -> Opened:
        self.digest = self.digest or await self.statement_digest()
        sealed = Sealed(self, self.digest, body, path=path, **options)
        opened = sealed.open(await sealed.send(self))
        plain = sealed.plain
        assert opened.claims.model == expected_model(self.manifest, opened.claims, plain)
        return opened


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("model", "word", "mode"), [("exact", "one", "exact"), ("fast", "two", "fast")])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_named_model_answers_and_the_receipt_names_it(
    path: str, model: str, word: str, mode: str, stream: bool
) -> None:
    """On every path, in a body or a stream; the mode is that model's own."""
    node = TwoModels()
    opened = await node.ask({"model": model, "stream": stream, **PATHS[path]}, path)
    assert (opened.claims.model, opened.claims.engine_mode, opened.claims.outcome) == (model, mode, "complete")
    assert word.encode() in opened.body
    assert {name: len(engine.requests) for name, engine in node.engines.items()} == {
        name: int(name == model) for name in node.engines
    }


async def test_all_models_are_listed() -> None:
    """In the order of the file; each can be asked for alone."""
    node = TwoModels()
    listed = await node.ask(None, "/v1/models", method="GET")
    assert [each["id"] for each in listed.json["data"]] == ["exact", "fast"]
    assert listed.claims.model == "exact"
    assert (await node.ask(None, "/v1/models/fast", method="GET")).json["id"] == "fast"


@pytest.mark.parametrize("path", [*PATHS, "/v1/models/none"])
async def test_an_unknown_model_is_refused_with_what_is_served(path: str) -> None:
    """404, model_not_found; no engine hears of it, and the receipt names the manifest's first model."""
    node = TwoModels()
    method, body = ("POST", {"model": "none", **PATHS[path]}) if path in PATHS else ("GET", None)
    refused = await node.ask(body, path, method=method)
    assert (refused.status, refused.json["error"]["code"]) == (404, "model_not_found")
    assert "'exact', 'fast'" in refused.json["error"]["message"]
    assert (refused.claims.outcome, refused.claims.model) == ("refused", "exact")
    assert not any(engine.requests for engine in node.engines.values())


async def test_one_models_limit_is_not_the_others() -> None:
    """While the first has no place left, it alone says so."""
    node = TwoModels(capacity=1, step_s=0.3)
    assert (await node.ask({"model": "fast", **SAY})).status == 200
    busy = asyncio.create_task(node.ask({"model": "exact", **SAY}))
    await node.engines["exact"].started.wait()
    refused = await node.ask({"model": "exact", **SAY})
    assert (refused.status, refused.json["error"]["code"]) == (503, "capacity_exceeded")
    assert (await node.ask({"model": "fast", **SAY})).status == 200
    assert (await busy).status == 200


async def test_no_two_models_and_no_two_tenants_share_a_salt() -> None:
    """One tenant has the same salt for the same model each time, and four pairs have four."""
    node = TwoModels()
    for _ in range(2):
        for model in node.engines:
            for tenant in ("aa", "bb"):
                await node.ask({"model": model, **SAY}, fields={"confide-cache-key": tenant * 32})
    salts = [request.cache_salt for engine in node.engines.values() for request in engine.requests]
    assert len(salts) == 8
    assert len(set(salts)) == 4
    assert all(len(salt) == 32 for salt in salts)
    assert salts[:2] == salts[2:4]
    assert salts[4:6] == salts[6:]


async def test_every_models_cache_is_forgotten_with_the_keys() -> None:
    """A new keyset takes what any of the engines keeps for tenants."""
    node = TwoModels()
    forgotten: list[str] = []
    for name, engine in node.engines.items():
        engine.forget_all = lambda name=name: forgotten.append(name)  # type: ignore[method-assign]
    node.clock.now += node.settings.keyset.lifetime_s
    node.holder.tick()
    assert forgotten == ["exact", "fast"]
