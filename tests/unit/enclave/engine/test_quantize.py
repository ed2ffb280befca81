"""Measuring schemes: perplexity against an independent definition, agreement, and speeds that exist."""

import numpy as np
import pytest
import torch
from confide_enclave.engine.quantize import BATCHES, Quality, Subject, compare

from tests.fakes import decoder, gguf


def test_perplexity_is_that_of_the_definition() -> None:
    """Float32's perplexity over two windows is that which a float64 model gives each window by itself."""
    tensors = decoder.tensors()
    ids = np.random.default_rng(1).integers(0, decoder.VOCABULARY, 2 * gguf.CONTEXT + 9).tolist()
    told = []
    for start in (0, gguf.CONTEXT):
        window = ids[start : start + gguf.CONTEXT]
        logits = decoder.oracle(tensors, window)[:-1]
        logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        told += logprobs[np.arange(len(logits)), window[1:]].tolist()
    found = Subject(decoder.model(tensors, "none"), torch.float32).quality(ids)
    assert found.perplexity == pytest.approx(np.exp(-np.mean(told)), rel=1e-4)
    assert len(found.likeliest) == len(told)


def test_agreement() -> None:
    """Agreement is the share of positions with the same likeliest token."""
    ours, theirs = (Quality(1.0, torch.tensor(ids)) for ids in ([1, 2, 3, 4], [1, 2, 5, 4]))
    assert ours.agreement(theirs) == 0.75
    assert ours.agreement(ours) == 1


def test_compare() -> None:
    """Eight bits stay near float32 and are about a quarter of the bytes, four fewer; each batch has a speed."""
    tensors = decoder.tensors()
    models = {scheme: decoder.model(tensors, scheme) for scheme in ("w8a8", "w8a16", "w4a16")}
    ids = list(range(decoder.VOCABULARY)) * (gguf.CONTEXT // decoder.VOCABULARY + 1)
    reference, exact, wide, small = compare(models, decoder.model(tensors, "none"), ids, rounds=1)
    assert (reference.scheme, exact.mode, wide.mode) == ("float32", "exact", "fast")
    assert exact.perplexity == pytest.approx(reference.perplexity, rel=0.1)
    assert wide.agreement >= 0.9
    assert small.perplexity == pytest.approx(reference.perplexity, rel=0.2)
    assert small.weight_bytes < wide.weight_bytes < exact.weight_bytes < reference.weight_bytes / 2.7
    assert all(each.decode_per_s.keys() == set(BATCHES) for each in (reference, exact, wide, small))
