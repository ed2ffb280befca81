"""Guesses by a smaller decoder: the model's own, given all its layers; refused with another tokenizer."""

import asyncio
from pathlib import Path

import pytest
import torch
from confide_enclave.engine import GenerationRequest, Sampling
from confide_enclave.engine.card import EngineLimits
from confide_enclave.engine.draft import Draft, DraftProposer, load_draft, skip_layers
from confide_enclave.engine.package import open_model
from confide_enclave.engine.torch_engine import TorchEngine
from confide_enclave.engine.weights import load_weights
from confide_protocol.errors import ConfigError

from tests.fakes import decoder as toy
from tests.fakes import gguf as fake

MODEL = toy.model(toy.tensors(7), "w8a8")
WEIGHTS = load_weights(MODEL, torch.float32)
LIMITS = EngineLimits(context_tokens=128, max_sequences=2)


@pytest.fixture(autouse=True)
def sure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A toy is never sure of anything."""
    monkeypatch.setattr("confide_enclave.engine.draft._SURE", 0.0)


def greedy(ids: list[int], count: int) -> list[int]:
    """What the whole model says next, read anew each time."""
    machine, said = toy.Machine(toy.tensors(7)), []
    for _ in range(count):
        said.append(int(machine.read(ids + said, range(9))[-1].argmax()))
    return said


def test_all_layers_guess_what_the_model_says() -> None:
    """Told new ids in pieces, after guesses that came true, in part, or not at all, and after none."""
    proposer = DraftProposer(Draft(skip_layers(WEIGHTS, (0, 1)), LIMITS, 8))
    ids = [9, 30, 4, 77, 12]
    assert proposer.propose(ids, 4) == greedy(ids, 4)
    for new, most in ((greedy(ids, 4), 3), ([5], 3), ([6, 7], 0), ([8], 2), ([], 2)):
        ids += new
        assert proposer.propose(new, most) == greedy(ids, most)


def test_fewer_layers_guess_something_else() -> None:
    """Skipping layers is another function of the same weights."""
    proposer = DraftProposer(Draft(skip_layers(WEIGHTS, (1,)), LIMITS, 8))
    guesses = proposer.propose([9, 30, 4, 77, 12], 7)
    assert (len(guesses), guesses != greedy([9, 30, 4, 77, 12], 7)) == (7, True)


@pytest.mark.parametrize("kept", [(), (1, 0), (0, 0), (2,), (-1,)])
def test_layers_that_are_not_there(kept: tuple[int, ...]) -> None:
    """Layers are named in order, each once."""
    with pytest.raises(ConfigError, match="draft_layers"):
        skip_layers(WEIGHTS, kept)


def test_no_page_is_left_and_none_is_taken_twice() -> None:
    """Without pages there are no guesses; what was held is zero and free again when a sequence ends."""
    draft = Draft(skip_layers(WEIGHTS, (0,)), LIMITS, 3)
    first, second = DraftProposer(draft), DraftProposer(draft)
    assert len(first.propose([5] * 30, 2)) == 2
    assert second.propose([6] * 20, 4) == []
    first.close()
    first.close()
    assert (draft.pages.free, draft.readers, int(draft.pool.data.count_nonzero())) == (3, 0, 0)
    assert len(second.propose([6], 2)) == 2
    assert draft.readers == 1


def test_a_guess_waits_for_nobody_else() -> None:
    """With several readers each guesses less far."""
    draft = Draft(skip_layers(WEIGHTS, (0,)), LIMITS, 9)
    proposers = [DraftProposer(draft) for _ in range(3)]
    assert [len(each.propose([5, 6], 6)) for each in proposers] == [6, 6, 3]
    assert [len(each.propose([7], 6)) for each in proposers] == [2, 2, 2]


def test_an_unsure_draft_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the threshold there is no guess."""
    monkeypatch.setattr("confide_enclave.engine.draft._SURE", 0.999)
    assert DraftProposer(Draft(WEIGHTS, LIMITS, 8)).propose([9, 30], 4) == []


def test_a_draft_has_the_models_tokenizer(tmp_path: Path) -> None:
    """Another model with the same tokenizer is taken; one with another end of text is refused."""
    paths = [tmp_path / name for name in ("same.gguf", "other.gguf")]
    other = fake.toy_metadata() | {"tokenizer.ggml.eos_token_id": 0}
    for path, metadata in zip(paths, (fake.toy_metadata(), other), strict=True):
        path.write_bytes(fake.write(metadata, fake.toy_tensors(9)))
    model = open_model(paths[0], "w8a8")
    weights = load_weights(model, torch.float32)

    def load(path: Path) -> Draft | None:
        return load_draft(model, weights, EngineLimits(speculate="draft", draft=str(path), context_tokens=64), 4)

    assert load(paths[0]) is not None
    with pytest.raises(ConfigError, match="same tokenizer"):
        load(paths[1])
    assert load_draft(model, weights, LIMITS, 4) is None


@pytest.mark.parametrize(
    "settings",
    [{"draft": "x"}, {"speculate": "draft"}, {"speculate": "layers"}, {"draft_layers": (1,)}, {"guesses": 8}],
)
def test_settings_that_do_not_go_together(settings: dict) -> None:
    """What a draft is made of is named where it is used, and nowhere else."""
    with pytest.raises(ValueError, match=r"speculate|guesses"):
        EngineLimits(**settings)


@pytest.mark.anyio
@pytest.mark.parametrize("fails", [False, True])
async def test_the_engine_answers_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """With a draft, without, and with one that breaks; nothing of it is left in the draft's cache."""
    (tmp_path / "toy.gguf").write_bytes(fake.toy_llama(5))
    limits = EngineLimits(speculate="layers", draft_layers=(0,), context_tokens=128, max_sequences=3, threads=1)
    engine = TorchEngine.load(tmp_path / "toy.gguf", "toy", limits)
    asked, broken = 0, DraftProposer._read

    def read(self, ids):
        nonlocal asked
        asked += 1
        if fails and asked % 5 == 4:
            raise RuntimeError
        return broken(self, ids)

    monkeypatch.setattr(DraftProposer, "_read", read)

    async def answer(number: int, speculate: bool) -> str:
        sampling = Sampling(temperature=0.7 * (number % 2), top_p=1.0, max_tokens=30, seed=number)
        request = GenerationRequest("abc" * number, sampling, bytes(32), speculate=speculate)
        return "".join([delta.text async for delta in engine.generate(request)])

    try:
        alone = [await answer(number, False) for number in (1, 2, 3)]
        assert asked == 0
        assert await asyncio.gather(*(answer(number, True) for number in (1, 2, 3))) == alone
        assert asked > 3
        draft = engine._runner.draft
        assert (draft.readers, draft.pages.free) == (0, len(draft.pages))
        assert int(draft.pool.data.count_nonzero()) == 0
    finally:
        await engine.close()
