"""Run a signed answer again: the same engine and API code, one request, no neighbours (SPEC 10.4).

`confide audit --rerun` finds `replay` by its entry point, and compares what comes out with what was signed. Here it
is decided whether what runs is what the manifest says, and whether the receipt tells the truth of the request.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

from confide_attestation.result import Check, Outcome
from confide_protocol.errors import ConfideError
from confide_protocol.keyset import Manifest, ServedModel
from confide_protocol.receipt import ReceiptClaims
from confide_protocol.shape import shape_named

from confide_enclave.api import Api, ApiRequest
from confide_enclave.api.answer import error_body
from confide_enclave.claims import sampling_claims
from confide_enclave.defaults import AnswerSettings
from confide_enclave.engine import Engine, ModelCard
from confide_enclave.engine.card import EngineLimits, read_card
from confide_enclave.engine.torch_engine import TorchEngine
from confide_enclave.manifest import fingerprint

_DECIDING: Final = ("mode", "scheme", "context_tokens")
# No bit of an answer in exact mode depends on these. What is neither has to be equal.
_INDIFFERENT: Final = frozenset(
    {
        "device",
        "ehbp",
        "embeddings",
        "embeddings_tokenizer",
        "embeddings_weights",
        "gpus",
        "max_sequences",
        "prefill_chunk_tokens",
        "prefix_tokens",
        "offload_tokens",
        "public_prefixes",
    }
)
_OF_WEIGHTS: Final = "source"
# Taken from the manifest as they are: no engine has them.
_ANSWERS: Final = frozenset(AnswerSettings().manifest())
_NOT_COMPARED: Final = _INDIFFERENT | _ANSWERS | {_OF_WEIGHTS}


class Rerun(NamedTuple):
    """What was checked before, and the answer: status, content type, events or body; None if nothing ran."""

    checks: tuple[Check, ...]
    answer: tuple[int, str, tuple[bytes, ...]] | None


def replay(
    manifest: Manifest,
    claims: ReceiptClaims,
    method: str,
    path: str,
    body: bytes,
    weights: Path,
    *,
    threads: int = 0,
) -> Rerun:
    """Run the request of a verified receipt under the settings of the manifest that the evidence vouches for.

    weights: a GGUF file or a converted package. Takes as long as the answer took, and the start of an engine.
    Raises: ConfigError when the weights cannot be used at all. Does not check: receipt, evidence, the request's
    commitment; the caller did.
    """
    model = manifest.find(claims.model)
    if model is None:
        return Rerun((_fail("rerun_manifest", f"it has no model of the name {claims.model}"),), None)
    mode = _check_mode(model, claims)
    if mode.outcome is not Outcome.PASS:
        return Rerun((mode,), None)
    limits = _limits(model)
    if limits is None:
        return Rerun(
            (mode, _fail("rerun_manifest", "its engine settings are not ones that this release has")), None
        )
    card = read_card(weights, model.model, limits)
    checks = (
        mode,
        _check_manifest(model, card),
        _check_release(manifest),
        _check_weights(model, card),
    )
    if any(check.outcome is Outcome.FAIL for check in checks):
        return Rerun(checks, None)
    done = asyncio.run(_run_alone(weights, plain(limits, threads), model, manifest, claims, method, path, body))
    return Rerun((*checks, *done.checks), done.answer)


async def _run_alone(
    weights: Path,
    limits: EngineLimits,
    model: ServedModel,
    manifest: Manifest,
    claims: ReceiptClaims,
    method: str,
    path: str,
    body: bytes,
) -> Rerun:
    engine = TorchEngine.load(weights, claims.model, limits)
    try:
        # Not of the files as they were when they were described: of what computes.
        loaded = _check_weights(model, engine.card)
        if loaded.outcome is Outcome.FAIL:
            return Rerun((loaded,), None)
        return await rerun(engine, manifest, claims, method, path, body)
    finally:
        await engine.close()


async def rerun(
    engine: Engine, manifest: Manifest, claims: ReceiptClaims, method: str, path: str, body: bytes
) -> Rerun:
    """Run one request on an engine that is what the manifest says.

    Ids are other ones, since they are drawn; all else that differs is a fault of the receipt or of the engine.
    """
    clock = lambda: float(claims.issued_unix_s)  # noqa: E731
    random = _drawing(claims.seed or 0)
    answers = {claims.model: _answers(manifest, claims)}
    api = Api([engine], fingerprint(manifest), clock=clock, random=random, answers=answers)
    try:
        shape = shape_named(claims.shape)
        answer = await api.answer(ApiRequest(method, path, body, shape.flush_tokens, bytes(32), ""))
        parts = list(answer.first)
        if answer.rest is not None:
            async with aclosing(answer.rest) as rest:
                async for batch in rest:
                    parts += batch
    except ConfideError as fault:
        said = error_body(fault)["error"]["message"]
        return Rerun((_fail("rerun_answer", f"the request is refused here: {said}"),), None)
    record = answer.record
    sampling, seed = (
        ({}, None) if record.sampling is None else (sampling_claims(record.sampling), record.sampling.seed)
    )
    counts = shape.bucket_tokens(record.prompt_tokens), shape.bucket_tokens(record.completion_tokens)
    checks = (
        _same(
            "rerun_sampling", {**claims.sampling, "seed": claims.seed}, {**sampling, "seed": seed}, "the request"
        ),
        _same(
            "rerun_counts",
            {"prompt_tokens": claims.prompt_tokens, "completion_tokens": claims.completion_tokens},
            dict(zip(("prompt_tokens", "completion_tokens"), counts, strict=True)),
            "the re-run",
        ),
    )
    return Rerun(checks, (answer.status, answer.content_type, tuple(parts)))


def _drawing(seed: int) -> Callable[[int], bytes]:
    """Give the receipt's seed to whoever draws one; whatever else is drawn is an id, and ids are not compared."""
    return lambda count: (seed % (1 << 8 * count)).to_bytes(count)


def _answers(manifest: Manifest, claims: ReceiptClaims) -> AnswerSettings:
    """Return what a request gets where it says nothing; `replay` has checked that the manifest says so."""
    return AnswerSettings.read((manifest.find(claims.model) or manifest).engine)


def plain(limits: EngineLimits, threads: int) -> EngineLimits:
    """Leave out whatever makes an engine faster: a batch, a cache of prefixes, tokens that are guessed ahead."""
    # One request may ask for several answers; those wait for one another.
    only = {
        "max_sequences": 1,
        "max_waiting": 256,
        "max_account_requests": 256,
        "prefix_tokens": 0,
        "offload_tokens": 0,
        "speculate": "off",
    }
    return limits.model_copy(update={**only, "threads": threads})


def _limits(model: ServedModel) -> EngineLimits | None:
    """Read the settings back that decide an answer; None where one is missing or not of this release."""
    try:
        AnswerSettings.read(model.engine)
        return EngineLimits.model_validate({name: model.engine[name] for name in _DECIDING})
    except (ValueError, KeyError):  # pydantic's is a ValueError
        return None


def _check_mode(model: ServedModel, claims: ReceiptClaims) -> Check:
    """Only a whole answer of exact mode comes out again."""
    name, mode = "rerun_mode", model.engine.get("mode")
    if claims.engine_mode != mode:
        return _fail(name, f"the receipt says {claims.engine_mode}, the manifest {mode}")
    if model.engine.get("kind") == "openai":
        answered = f"{model.engine.get('server')} {model.engine.get('version')} answered, not our own engine"
        return _fail(name, f"not replayable: {answered}")
    if mode != "exact":
        return _fail(
            name, f"not replayable: {mode} mode rounds as its neighbours have it; only exact mode does not"
        )
    if claims.outcome != "complete":
        return _fail(
            name, f"not replayable: the answer is {claims.outcome}; only a complete one is the model's alone"
        )
    return Check(name, Outcome.PASS, "exact mode: the answer depends on request, weights and settings alone")


def _check_manifest(model: ServedModel, card: ModelCard) -> Check:
    wanted = {name: value for name, value in model.engine.items() if name not in _NOT_COMPARED}
    found = {name: value for name, value in card.engine.items() if name not in _NOT_COMPARED}
    return _same("rerun_manifest", {**wanted, "model": model.model}, {**found, "model": card.name}, "this engine")


def _check_release(manifest: Manifest) -> Check:
    own = version("confide")
    if own == manifest.release:
        return Check("rerun_release", Outcome.PASS, f"release {own} there and here")
    return Check("rerun_release", Outcome.SKIP, f"release {manifest.release} there, {own} here; the answer decides")


def _check_weights(model: ServedModel, card: ModelCard) -> Check:
    return _same(
        "rerun_weights",
        {
            "weights": model.weights_digest.hex(),
            "tokenizer": model.tokenizer_digest.hex(),
            _OF_WEIGHTS: model.engine.get(_OF_WEIGHTS),
        },
        {
            "weights": card.weights_digest.hex(),
            "tokenizer": card.tokenizer_digest.hex(),
            _OF_WEIGHTS: card.engine.get(_OF_WEIGHTS),
        },
        "what was given",
    )


def _same(name: str, signed: Mapping[str, object], found: Mapping[str, object], what: str) -> Check:
    differing = [each for each in sorted({*signed, *found}) if signed.get(each) != found.get(each)]
    if differing:
        shown = ", ".join(f"{each} {signed.get(each)} signed, {found.get(each)} found" for each in differing)
        return _fail(name, shown)
    return Check(name, Outcome.PASS, f"{what} agrees in {', '.join(sorted(signed))}")


def _fail(name: str, detail: str) -> Check:
    return Check(name, Outcome.FAIL, detail)
