"""The self-test on a processor: what is compiled is what is defined."""

import torch
from confide_kernels import selftest
from confide_kernels.quant import Rows, compiled


def test_every_operation_is_right() -> None:
    assert selftest.check(torch.device("cpu")) == []


def test_a_wrong_one_is_named(monkeypatch) -> None:
    right = compiled.quantise
    monkeypatch.setattr(compiled, "quantise", lambda x: Rows(right(x).levels, right(x).tops * 2))
    [fault] = selftest.check(torch.device("cpu"))
    assert fault.startswith("quant.quantise: ")
