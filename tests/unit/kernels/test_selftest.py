"""The self-test on a processor: what is compiled is what is defined."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

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


def test_checks_take_turns(monkeypatch) -> None:
    """What a check sets for the process, another's end must not take back; one thread may hold it for more."""
    running, most = threading.Semaphore(0), []

    def case(move: selftest.Move) -> Iterator[selftest.Pair]:
        running.release()
        time.sleep(0.05)
        most.append(running._value)
        assert running.acquire(blocking=False)
        yield selftest.Pair(torch.are_deterministic_algorithms_enabled(), True)

    monkeypatch.setattr(selftest, "_CASES", {"mine": case})
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(selftest.check, [torch.device("cpu")] * 4))
    assert (found, most) == ([[]] * 4, [1] * 4)
    with selftest.BUILDING:
        assert selftest.check(torch.device("cpu")) == []
    assert not torch.are_deterministic_algorithms_enabled()
