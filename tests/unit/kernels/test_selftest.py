"""The self-test on a processor: what is compiled is what is defined."""

import sys
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


def test_tables_of_another_library_are_seen(monkeypatch) -> None:
    """One last bit of one cosine: nodes that differ in it would give different answers."""
    right = selftest.rope.table

    def table(*arguments) -> torch.Tensor:
        made = right(*arguments)
        made[4000, 0, 5] = torch.nextafter(made[4000, 0, 5], torch.tensor(2.0))
        return made

    monkeypatch.setattr(selftest.rope, "table", table)
    assert selftest._fault(selftest._tables, torch.device("cpu")) == "in its comparison 2, what it says differs"


def test_what_cannot_be_tried_is_skipped_by_name(monkeypatch) -> None:
    """Without `cryptography` all but sealing is there; one that serves skips nothing."""
    for name in list(sys.modules):
        if name.split(".")[0] == "cryptography":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.setattr(selftest, "_CASES", {name: selftest._CASES[name] for name in ("wipe.wipe", "seal.seal")})
    [fault] = selftest.check(torch.device("cpu"))
    assert fault.startswith("seal.seal: ModuleNotFoundError")
    assert selftest.check(torch.device("cpu"), skipped=["seal.seal"]) == []
