"""Memory that a kernel forgot to write shows: torch.empty and its kin give NaN, and levels that no row has."""

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("empty", "empty_like"):
        original = getattr(torch, name)

        def poisoned(*args, original=original, **kwargs) -> torch.Tensor:
            fresh = original(*args, **kwargs)
            if fresh.is_floating_point():
                return fresh.fill_(float("nan"))
            return fresh.fill_(-128) if fresh.dtype == torch.int8 else fresh.zero_()

        monkeypatch.setattr(torch, name, poisoned)

    plain = np.empty

    def poisoned_array(shape: tuple[int, ...], dtype: type = float) -> np.ndarray:
        fresh = plain(shape, dtype)
        fresh.fill(np.nan if fresh.dtype.kind == "f" else {np.dtype(np.int8): -128}.get(fresh.dtype, 0))
        return fresh

    monkeypatch.setattr(np, "empty", poisoned_array)
    torch.manual_seed(0)
