"""What a receipt says of sampling: all that decides an answer, and nothing that it is about."""

from dataclasses import fields

from confide_enclave.claims import sampling_claims
from confide_enclave.engine import Sampling


def test_every_parameter_shows() -> None:
    """Each one's change changes the claims; the seed has a claim of its own, log-probabilities decide nothing."""
    base = Sampling(1.0, 1.0, 16, 5)
    changed = {
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 17,
        "stop": ("x",),
        "top_k": 5,
        "min_p": 1e-05,
        "frequency_penalty": -0.5,
        "presence_penalty": 2.0,
        "repetition_penalty": 1.1,
        "logit_bias": ((1, 2.0),),
        "grammar": "start: /x/",
        "choices": 2,
        "candidates": 3,
    }
    assert {each.name for each in fields(Sampling)} == {*changed, "seed", "logprobs"}
    before = sampling_claims(base)
    for name, value in changed.items():
        after = sampling_claims(Sampling(**{**vars(base), name: value}))
        assert len({key for key in after if after[key] != before[key]}) == 1
        assert all(type(each) in (str, int) for each in after.values())
    assert before["temperature"] == "1.0"
    assert sampling_claims(Sampling(0, 1, 1, 0))["temperature"] == "0.0"


def test_content_is_counted_and_not_shown() -> None:
    """Neither stop strings nor schemas stand in a receipt, nor digests that would let one guess them."""
    said = sampling_claims(Sampling(1.0, 1.0, 16, 5, stop=("CANARY",), grammar="CANARY", logit_bias=((77, 3.25),)))
    assert (said["stop_count"], said["logit_bias_count"], said["constrained"]) == (1, 1, 1)
    assert not {"CANARY", "77", "3.25"} & {str(value) for value in said.values()}
