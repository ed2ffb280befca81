"""Servers of three kinds behind one engine: what each is asked, what it says, and in what it may not differ."""

import json
import os
import re
import signal
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from confide_enclave.errors import Refusal
from confide_enclave.remote.card import read_card
from confide_enclave.remote.launch import prepare
from confide_enclave.remote.servers import SERVERS, Start
from confide_protocol.errors import ConfigError, EngineError
from pydantic import ValidationError

from tests.unit.enclave.remote.fake import Server
from tests.unit.enclave.remote.support import (
    answer,
    connected,
    gguf,
    model_of,
    opened,
    request,
    settings,
    spell,
    spell_bytes,
    started,
    text,
    tokens,
    until,
)

pytestmark = pytest.mark.anyio
KINDS = sorted(SERVERS)


@asynccontextmanager
async def over(kind: str, ids: list[int], **faults):
    """Give an engine over a server of this kind, and the server."""
    spelling = {token: tokens().token_bytes(token) for token in range(tokens().size)}
    server = Server(ids, kind=kind, spell=spelling)
    for name, value in faults.items():
        setattr(server, name, value)
    async with connected(server) as engine:
        server.bodies.clear()  # of the questions at the start
        yield engine, server


@pytest.mark.parametrize("kind", KINDS)
async def test_the_same_answer_comes_from_every_kind(kind) -> None:
    """Text, counts, a reason; a stop string; a limit."""
    async with over(kind, spell("Paris.")) as (engine, _):
        deltas = await answer(engine)
        assert text(deltas) == "Paris."
        assert (deltas[-1].finish_reason, deltas[-1].completion_tokens) == ("stop", 7)
        assert deltas[-1].prompt_tokens == len(tokens().encode("hello"))
        assert text(await answer(engine, request(stop=("is",)))) == "Par"
        cut = await answer(engine, request(max_tokens=2))
        assert (text(cut), cut[-1].finish_reason, cut[-1].completion_tokens) == ("Pa", "length", 2)


async def test_what_sglang_is_asked() -> None:
    """As vLLM, but for its names of no limit and of a grammar."""
    async with over("sglang", spell("ab")) as (engine, server):
        assert text(await answer(engine, request(grammar='start: "ab"', max_tokens=9))) == "ab"
    (body,) = server.bodies
    assert (body["top_k"], body["ebnf"]) == (-1, 'start: "ab"')
    assert len(body["cache_salt"]) == 64
    assert "structured_outputs" not in body


async def test_what_llama_cpp_is_asked() -> None:
    """Token ids, its own names, nothing kept of the prompt, and of samplers those that were asked for."""
    async with over("llama.cpp", spell("ab")) as (engine, server):
        asked = request(grammar='start: "ab"', max_tokens=9, seed=2**64 - 1, top_k=5, repetition_penalty=1.5)
        assert text(await answer(engine, asked)) == "ab"
    (body,) = server.bodies
    prompt = tokens().encode("hello")
    assert body == {
        "prompt": prompt, "n_predict": 9, "temperature": 0.0, "top_p": 1.0, "top_k": 5, "min_p": 0.0,
        "samplers": ["penalties", "temperature", "top_k", "min_p", "top_p"], "frequency_penalty": 0.0,
        "presence_penalty": 0.0, "repeat_penalty": 1.5, "repeat_last_n": len(prompt) + 9, "seed": 0, "stop": [],
        "logit_bias": [], "stream": True, "return_tokens": True, "cache_prompt": False, "n_cache_reuse": 0,
        "id_slot": -1, "n_probs": 0, "post_sampling_probs": False, "response_fields": [
            "stop", "tokens", "tokens_predicted", "tokens_evaluated", "content", "stop_type", "model",
        ], "grammar": '%llguidance {}\nstart: "ab"',
    }  # fmt: skip


async def test_tokens_that_it_keeps_back_count_and_are_text() -> None:
    """Those within a character come without ids, spelled by the one that completes it."""
    emoji = spell_bytes("é\N{GRINNING FACE}".encode())
    async with over("llama.cpp", [*spell("a"), *emoji, *spell("b")]) as (engine, server):
        deltas = await answer(engine)
        assert text(deltas) == "aé\N{GRINNING FACE}b"
        assert [delta.completion_tokens for delta in deltas] == [1, 3, 7, 8, 9, 9]
        # Cut amid a character: what nobody spells is no text.
        for limit, said in ((2, "a"), (4, "aé"), (6, "aé")):
            cut = await answer(engine, request(max_tokens=limit))
            assert (text(cut), cut[-1].completion_tokens, cut[-1].finish_reason) == (said, limit, "length")
        assert (
            text(await answer(engine, request(grammar='start: "aé\N{GRINNING FACE}b"'))) == "aé\N{GRINNING FACE}b"
        )
        with pytest.raises(EngineError) as caught:
            await answer(engine, request(grammar='start: "aö\N{GRINNING FACE}b"'))
        assert caught.value.code == "engine_malformed"
        with pytest.raises(EngineError) as caught:
            await answer(engine, request(logprobs=1))
        assert caught.value.code == "engine_refused"
        assert len(server.bodies) == 7
        # An end that follows a part of a character is not named either.
        server.ids = [*spell("a"), emoji[0]]
        broken = await answer(engine)
        assert (text(broken), broken[-1].completion_tokens, broken[-1].finish_reason) == ("a", 3, "stop")


@pytest.mark.parametrize(
    "spoil",
    [
        {"tokens_predicted": 1},
        {"tokens_predicted": 60},
        {"content": "x"},
        {"tokens_predicted": 99},
        {"tokens": [1 << 30]},
        {"tokens_evaluated": -1},
        {"stop": True, "stop_type": "eos"},
        {"stop": True, "stop_type": "limit"},
        {"content": 5},
    ],
)
async def test_counts_that_do_not_fit_what_is_spelled(spoil) -> None:
    """Too few, too many, another text, an end amid it."""
    ids = [*spell("a"), *spell_bytes("é".encode()), *spell("b")]
    async with over("llama.cpp", ids) as (engine, server):
        server.spoil = lambda number, event: event | spoil if number == 1 else event
        with pytest.raises(EngineError) as caught:
            await answer(engine)
        assert caught.value.code == "engine_malformed"
        server.spoil = lambda _, event: event
        assert text(await answer(engine)) == "aéb"


@pytest.mark.parametrize(
    "last", [{"tokens_predicted": 2}, {"tokens_evaluated": 1}, {"stop_type": "word"}, {"model": "x"}]
)
async def test_an_end_that_does_not_fit(last) -> None:
    """Counts of another answer, a reason that nobody gave it, another model."""
    async with over("llama.cpp", spell("ab")) as (engine, server):
        server.spoil = lambda _, event: event | last if event["stop"] else event
        with pytest.raises(EngineError) as caught:
            await answer(engine)
        assert caught.value.code in ("engine_malformed", "engine_lost")


async def test_its_log_probabilities_are_by_id_too() -> None:
    """Best first, as many as were asked for."""
    async with over("llama.cpp", spell("ab")) as (engine, _):
        told = [each for delta in await answer(engine, request(logprobs=2)) for each in delta.logprobs or ()]
    assert [(each.token, each.logprob) for each in told] == [(b"a", -0.5), (b"b", -0.5)]
    assert told[0].top == ((tokens().token_bytes(3), -0.25), (b"a", -0.5))


async def test_a_build_without_llguidance_says_so_by_name() -> None:
    """Found out at the start, not by a client's request; everything else is answered."""
    async with over("llama.cpp", spell("ab"), grammars=False) as (engine, _):
        for more, param in (({}, "response_format"), ({"tools": [{"name": "x"}]}, "tools")):
            asked = request(grammar='start: "ab"')
            with pytest.raises(Refusal) as caught:
                await answer(engine, type(asked)(**{**vars(asked), **more}))
            assert caught.value.param == param
        assert text(await answer(engine)) == "ab"


async def test_sglang_names_no_tokens_by_id() -> None:
    """So log-probabilities are refused by name, with or without a grammar."""
    async with over("sglang", spell("ab")) as (engine, server):
        for more in ({}, {"grammar": 'start: "ab"'}):
            with pytest.raises(Refusal) as caught:
                await answer(engine, request(logprobs=1, **more))
            assert caught.value.param == "logprobs"
        assert server.bodies == []


async def test_a_cache_that_tenants_would_share_is_refused() -> None:
    """A server without salts must say that it keeps nothing."""
    with pytest.raises(ConfigError, match="--disable-radix-cache"):
        async with over("sglang", spell("ab"), caches=True):
            pass


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"model": "other"}, "model.name"),
        ({"max_model_len": 64}, "engine.context_tokens"),
        ({"version": "9.9"}, "engine.version"),
        ({"api_key": "k"}, "engine.api_key_file"),
    ],
)
async def test_the_wrong_server_is_named(kind, wrong, field) -> None:
    """Another model, a smaller context, another version, another key: each with its remedy."""
    server = Server(spell("ab"), kind=kind, spell={}, **wrong)
    with pytest.raises(ConfigError) as caught:
        async with connected(server):
            pass
    assert caught.value.field == field


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_of_another_kind_is_named(kind) -> None:
    """It answers, but not as the one that the settings name."""
    server = Server(spell("ab"), kind="llama.cpp" if kind == "vllm" else "vllm")
    with pytest.raises(ConfigError) as caught:
        async with server.at() as url, opened(settings(url=url, server=kind)):
            pass
    assert caught.value.field == "engine.server"


START = Start("/weights", "name", "/socket", 4096, 8, "/key")


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_enclave_sets_nobody_else_can(kind) -> None:
    """None of its own arguments or variables is on the lists of those that an operator may set."""
    server = SERVERS[kind]
    own = {word for word in server.own(START) if re.fullmatch(r"--[a-z0-9-]+.*", word)}
    options = server.options
    assert own
    assert not own & (options.flags | options.values | options.lists)
    assert not options.refused.keys() & (options.flags | options.values | options.lists)
    assert not (options.environment.keys() | {server.key_variable}) & options.variables
    assert not options.refused_variables.keys() & options.variables
    for word in own:
        with pytest.raises(ValidationError):
            settings(command=("x",), server=kind, arguments=(word, "1"))


@pytest.mark.parametrize(
    ("kind", "word", "reason"),
    [
        ("sglang", "--nnodes", "span machines"),
        ("sglang", "--use-ray", "span machines"),
        ("sglang", "--log-requests", "where others read it"),
        ("sglang", "--enable-hierarchical-cache", "another's"),
        ("sglang", "--speculative-algorithm", "guess tokens"),
        ("sglang", "--load-format", "other weights"),
        ("llama.cpp", "--rpc", "span machines"),
        ("llama.cpp", "--log-prompts-dir", "where others read it"),
        ("llama.cpp", "--cache-prompt", "another's"),
        ("llama.cpp", "--model-draft", "guess tokens"),
        ("llama.cpp", "--lora", "other weights"),
        ("llama.cpp", "--tensor-parallel-size", "not on the list"),
    ],
)
def test_each_kind_has_its_own_closed_list(kind, word, reason) -> None:
    """With the reason where there is one."""
    with pytest.raises(ValidationError, match=reason):
        settings(command=("x",), server=kind, arguments=(word, "1"))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("sglang", ("--tp-size", "4", "--pp-size", "2", "--mem-fraction-static", "0.8", "--disable-cuda-graph")),
        ("llama.cpp", ("--threads", "2", "-ngl", "all", "--split-mode", "tensor", "--tensor-split", "1,1")),
        ("vllm", ("--hf-overrides", '{"rope_theta": 1000000.0, "max_position_embeddings": 32768}')),
        ("vllm", ("--hf-overrides.rope_scaling.factor", "2.0")),
    ],
)
def test_what_fits_one_machine_is_taken(kind, words) -> None:
    """Its GPUs, its threads, and how far a model's positions reach."""
    assert settings(command=("x",), server=kind, arguments=words).arguments == words


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("vllm", ("--hf-overrides", '{"architectures": ["Other"]}')),
        ("vllm", ("--hf-overrides", '{"auto_map": {}}')),
        ("vllm", ("--hf-overrides.auto_map", "x")),
        ("vllm", ("--hf-overrides", "function")),
        ("sglang", ("--json-model-override-args", '{"architectures": ["Other"]}')),
    ],
)
def test_overrides_may_not_say_what_the_model_is(kind, words) -> None:
    """Nor which code reads it: the manifest's digest is of its own files."""
    with pytest.raises(ValidationError, match=r"not on the list of its members|JSON object"):
        settings(command=("x",), server=kind, arguments=words)


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_is_started_and_comes_back(kind, tmp_path) -> None:
    """Over its socket or port, with a key that is in no argument; killed, it is there again; then it is gone."""
    notes, ids = tmp_path / "notes", ",".join(map(str, spell("Paris")))
    async with opened(started({"FAKE_NOTES": str(notes), "FAKE_IDS": ids}, server=kind)) as engine:
        assert text(await answer(engine)) == "Paris"
        first = json.loads(notes.read_text())
        key = engine._client.api_key
        assert len(key) == 64
        assert key not in " ".join(first["argv"])
        os.kill(first["pid"], signal.SIGKILL)
        await until(lambda: not engine.ready)
        await until(lambda: engine.ready)
        assert text(await answer(engine)) == "Paris"
        second = json.loads(notes.read_text())
    assert second["pid"] != first["pid"]
    assert not os.path.exists(f"/proc/{second['pid']}")  # noqa: ASYNC240
    assert not os.path.exists(engine._folder or "")  # noqa: ASYNC240


def test_sglang_reads_its_key_from_a_file_of_its_own(tmp_path, monkeypatch) -> None:
    """It has no variable for it and no unix socket: a port of loopback, and a file in a folder that is ours."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    chosen = settings(command=("sglang",), server="sglang")
    folder, url, key, launch = prepare(
        chosen, read_card(model_of("sglang"), "toy", chosen), Path("/weights"), print
    )
    (file,) = Path(folder).iterdir()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
    assert (file.stat().st_mode & 0o777, Path(folder).stat().st_mode & 0o777) == (0o600, 0o700)
    assert file.read_text() == f"api-key: {key}\n"
    assert key not in " ".join(launch.argv)
    assert key not in launch.environment.values()
    assert launch.argv[launch.argv.index("--config") + 1] == str(file)
    assert {"--disable-radix-cache", "--grammar-backend"} <= set(launch.argv)


def test_a_temporary_folder_that_lies_too_deep_is_named(tmp_path, monkeypatch) -> None:
    """Before anything is started, and nothing is left there."""
    deep = tmp_path / ("deep" * 25)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.setattr("tempfile.tempdir", None)
    chosen = settings(command=("vllm",))
    with pytest.raises(ConfigError, match="too long") as caught:
        prepare(chosen, read_card(model_of("vllm"), "toy", chosen), Path("/weights"), print)
    assert (caught.value.field, list(deep.iterdir())) == ("TMPDIR", [])


def test_llama_cpp_has_a_place_for_each_request() -> None:
    """Of the whole context, rounded up as it does, so that none is short of a token."""
    chosen = settings(command=("x",), server="llama.cpp", context_tokens=4096, max_requests=3)
    folder, *_, launch = prepare(chosen, read_card(gguf(), "toy", chosen), gguf(), print)
    Path(folder).rmdir()
    argv = launch.argv
    assert argv[argv.index("--ctx-size") + 1] == str((4096 + 256) * 3)
    words = SERVERS["llama.cpp"].own(START)
    given = {name: words[words.index(name) + 1] for name in ("--ctx-size", "--parallel", "--alias")}
    assert given == {"--ctx-size": str(4096 * 8), "--parallel": "8", "--alias": "name"}
    assert {"--no-cache-prompt", "--no-slots", "--no-kv-unified", "--offline"} <= set(words)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_the_wrong_form_are_named(kind, tmp_path) -> None:
    """A file for the one, a directory for the others."""
    chosen = settings(command=("x",), server=kind)
    wrong = model_of("vllm") if kind == "llama.cpp" else gguf()
    with pytest.raises(ConfigError) as caught:
        read_card(wrong, "toy", chosen)
    assert caught.value.field == "model.weights"
    card = read_card(model_of(kind), "toy", chosen)
    assert (card.engine["server"], card.engine["tested"]) == (kind, kind == "vllm")
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError):
        read_card(tmp_path / "empty", "toy", settings(command=("x",), server="llama.cpp"))
