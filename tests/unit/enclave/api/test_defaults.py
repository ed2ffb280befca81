"""What an answer gets where its request says nothing."""

import json

import pytest
from confide_enclave.api import Api, ApiRequest
from confide_enclave.defaults import AnswerSettings

from tests.fakes.engine import ScriptedEngine
from tests.unit.enclave.api.asking import CHAT, PATH_CHAT, PATH_RESPONSES

pytestmark = pytest.mark.anyio

ASKED = {PATH_CHAT: CHAT, PATH_RESPONSES: {"model": "scripted", "input": "one two"}}
LIMIT = {PATH_CHAT: "max_tokens", PATH_RESPONSES: "max_output_tokens"}


async def drawn(path: str, more: dict, answers: AnswerSettings | None = None) -> tuple:
    engine = ScriptedEngine()
    named = {} if answers is None else {"scripted": answers, "another": AnswerSettings(temperature=2.0)}
    api = Api([engine], "fp", clock=lambda: 0.0, random=bytes, answers=named)
    await api.answer(ApiRequest("POST", path, json.dumps({**ASKED[path], **more}).encode(), 1, bytes(32), ""))
    sampling = engine.requests[0].sampling
    return sampling.temperature, sampling.top_p, sampling.max_tokens


@pytest.mark.parametrize("path", ASKED)
async def test_openais_and_half_the_context(path: str) -> None:
    """Without settings: a model that finds no end stops there."""
    half = ScriptedEngine().card.context_tokens // 2
    assert await drawn(path, {}) == (1.0, 1.0, half)
    assert await drawn(path, {"temperature": None, LIMIT[path]: 2 * half}) == (1.0, 1.0, 2 * half)


@pytest.mark.parametrize("path", ASKED)
async def test_what_suits_the_model(path: str) -> None:
    """The settings of that model, and only where the request is silent."""
    suits = AnswerSettings(temperature=0.2, top_p=0.9, max_tokens=7)
    assert await drawn(path, {}, suits) == (0.2, 0.9, 7)
    assert await drawn(path, {"temperature": 0, LIMIT[path]: 9}, suits) == (0.0, 0.9, 9)


async def test_a_response_says_what_was_used() -> None:
    """Its object repeats the numbers, asked for or not."""
    engine = ScriptedEngine()
    api = Api([engine], "fp", clock=lambda: 0.0, random=bytes, answers={"scripted": AnswerSettings(top_p=0.9)})
    body = json.dumps(ASKED[PATH_RESPONSES]).encode()
    answer = await api.answer(ApiRequest("POST", PATH_RESPONSES, body, 1, bytes(32), ""))
    assert json.loads(answer.first[0])["top_p"] == 0.9
