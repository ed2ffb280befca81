"""Triton kernels beside their definitions: on a GPU where there is one, else in Triton's interpreter."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.fakes.interpreter import interpret_without_gpu

interpret_without_gpu()


@pytest.fixture(autouse=True)
def poison_integers(monkeypatch: pytest.MonkeyPatch, poison: None) -> Iterator[None]:
    """Memory that a kernel forgot to write shows in integers too."""
    for name in ("empty", "empty_like"):
        original = getattr(torch, name)

        def poisoned(*args, original=original, **kwargs) -> torch.Tensor:
            fresh = original(*args, **kwargs)
            return fresh if fresh.is_floating_point() else fresh.fill_(-111 if fresh.dtype.is_signed else 111)

        monkeypatch.setattr(torch, name, poisoned)
    # The interpreter's arithmetic is numpy's, which warns of numbers that are not finite.
    with np.errstate(all="ignore"):
        yield
