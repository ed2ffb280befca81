"""Arbitrary bodies raise only what is declared."""

import contextlib
import json

import pytest
from confide_enclave.api.embeddings import EmbeddingParameters
from confide_enclave.api.parameters import ChatParameters, CompletionParameters
from confide_enclave.api.reading import parse_parameters
from confide_enclave.api.response_parameters import ResponseParameters
from confide_enclave.errors import Refusal
from hypothesis import given
from hypothesis import strategies as st

MODELS = [ChatParameters, CompletionParameters, ResponseParameters, EmbeddingParameters]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(sorted({name for model in MODELS for name in model.model_fields}))


@pytest.mark.parametrize("model", MODELS)
@given(data=st.binary(max_size=256))
def test_bytes_are_read_or_refused(model, data):
    """No other exception than Refusal leaves the parser."""
    with contextlib.suppress(Refusal):
        parse_parameters(data, model)


@pytest.mark.parametrize("model", MODELS)
@given(tree=st.dictionaries(NAMES | st.text(max_size=8), VALUES, max_size=6), data=st.data())
def test_trees_are_read_or_refused_without_their_values(model, tree, data):
    """Known names with any value: a refusal never repeats a text that the caller sent as a value."""
    mark = "CANARY"
    tree[data.draw(NAMES)] = data.draw(st.sampled_from([mark, [mark], {mark: mark}, [{mark: mark}]]))
    said = ""
    try:
        parse_parameters(json.dumps(tree).encode(), model)
    except Refusal as fault:
        said = f"{fault.message}{fault.param}"
    assert mark not in said
