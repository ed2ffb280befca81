"""Facades call Triton's versions for what lies on a GPU, and never otherwise; importing them imports no Triton."""

import importlib
import subprocess
import sys

import pytest
import torch
from confide_kernels import place
from confide_kernels.attention import Span, Spans
from confide_kernels.gemm import Product
from confide_kernels.quant import Rows
from confide_kernels.rope import Cache, Heads

from tests.unit.kernels.triton.shared import DEVICE, on_device, require_triton

require_triton()

X, ONE = torch.ones(2, 32), torch.ones(2, dtype=torch.float64)
LEVELS, PRODUCT = torch.ones(2, 32, dtype=torch.int8), Product(torch.ones(2, 32), torch.ones(2, 1))
ROWS = Rows(LEVELS, torch.ones(2, 1))
CACHE = Cache(torch.zeros(2, 4, 1, 8, dtype=torch.int8), torch.zeros(2, 1, 4))
NOTHING, SPANS = Heads(None, None, None, 1e-6), Spans.of([Span(0, 2, 2, slice(0, 2))])
PLACES = torch.arange(2)
PAGES = torch.zeros(1, 8, dtype=torch.uint8)
Q = torch.ones(2, 2, 8)
CASES = {
    "quant.quantise": (X,),
    "norm.add_rms_norm_int8": (X, None, 1e-6),
    "norm.rms_norm": (X, None, 1e-6, torch.float32),
    "activation.silu_mul": (X,),
    "activation.silu_mul_int8": (PRODUCT,),
    "rope.rotate_store": (PRODUCT, NOTHING, torch.ones(4, 2, 8), PLACES, CACHE, PLACES),
    "rope.rotate_store_floats": (X, NOTHING, torch.ones(4, 2, 8), PLACES, CACHE.data.float(), PLACES),
    "attention.attend": (Q, Q[:, :1].contiguous(), Q[:, :1].contiguous(), SPANS),
    "attention.attend_int8": (Q.to(torch.int8), Q[..., 0].contiguous(), CACHE, SPANS),
    "gemm.linear_w8a8": (ROWS, LEVELS, torch.ones(2)),
    "gemm.linear_w8a16": (X, LEVELS, torch.ones(2)),
    "gemm.linear_w4a16": (X, LEVELS.view(torch.uint8)[:, ::2].contiguous(), torch.ones(2, 1, 2)),
    "sampling.sample": (X, ONE, ONE.long(), ONE, ONE * 0, ONE / 2),
    "wipe.wipe": (CACHE.data[None], CACHE.tops[None], PLACES[:1], 2),
    "seal.seal": (bytes(32), [bytes(12)], PAGES, [b""]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_facade_chooses_by_where_its_tensors_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, or where the interpreter stands in for one, it is Triton's version that is called."""
    operation, function = name.split(".")
    if operation == "seal":
        pytest.importorskip("cryptography", reason="cryptography is not installed")
    facade = getattr(importlib.import_module(f"confide_kernels.{operation}"), function)
    gpu = importlib.import_module(f"confide_kernels.{operation}.triton")
    called = []
    original = getattr(gpu, function)

    def spy(*arguments: object, **options: object) -> object:
        called.append(function)
        return original(*arguments, **options)

    monkeypatch.setattr(gpu, function, spy)
    facade(*on_device_as_copies(CASES[name], "cpu"))
    assert not called
    monkeypatch.setattr(place, "INTERPRETED", DEVICE == "cpu")
    facade(*on_device_as_copies(CASES[name], DEVICE))
    assert called == [function]


def on_device_as_copies(arguments: tuple, device: str) -> tuple:
    if device != "cpu":
        return on_device(arguments)
    return tuple(each.clone() if isinstance(each, torch.Tensor) else each for each in arguments)


def test_unsealing_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one version sealed the other opens, through the facade."""
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    from confide_kernels import seal

    sealed = seal.seal(bytes(32), [bytes(12)], PAGES + 7, [b"x"])
    monkeypatch.setattr(place, "INTERPRETED", DEVICE == "cpu")
    opened = torch.zeros_like(PAGES, device=DEVICE)
    assert seal.unseal(bytes(32), sealed, [b"x"], opened) == [True]
    assert (opened == 7).all()


def test_weights_stay_as_they_are_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """What processors pack, GPUs read in rows."""
    from confide_kernels import gemm

    monkeypatch.setattr(place, "INTERPRETED", DEVICE == "cpu")
    large = torch.ones(2048, 1024, dtype=torch.int8, device=DEVICE)
    assert gemm.pack_w8a8(large).data_ptr() == large.data_ptr()
    packed, scales = torch.ones(64, 32, dtype=torch.uint8, device=DEVICE), torch.ones(64, 2, 2, device=DEVICE)
    for got, given in zip(gemm.pack_w4a16(packed, scales, torch.bfloat16), (packed, scales), strict=True):
        assert got.data_ptr() == given.data_ptr()
    with pytest.raises(ValueError, match="may leave int32"):
        gemm.pack_w8a8(torch.ones(1, gemm.MAX_WIDTH + 1, dtype=torch.int8, device=DEVICE))


def test_rows_of_logits_are_changed_where_they_lie() -> None:
    """Settings that lie on the CPU follow them."""
    from confide_kernels import sampling

    logits = torch.tensor([1.0, -2.0, 3.0, 4.0], device=DEVICE)
    ids, factors, shift = (
        torch.tensor([1, 2]),
        torch.tensor([2.0, 2.0]).double(),
        torch.tensor([0.0, 1.0]).double(),
    )
    assert sampling.adjust(logits, ids, factors, shift).tolist() == [1.0, -4.0, 2.5, 4.0]
    assert sampling.forbid(logits, torch.tensor([5], dtype=torch.uint8)).tolist() == [1, -torch.inf, 3, -torch.inf]
    values, best = sampling.log_probabilities(logits, 2)
    assert best.tolist() == [3, 2]
    assert values.is_cpu


def test_facades_do_without_triton() -> None:
    """A machine without a GPU need not have it."""
    program = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from confide_kernels import activation, attention, gemm, norm, quant, rope, sampling, seal, wipe\n"
        "print(quant.quantise(torch.ones(1, 2)).tops.item())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout == "1.0\n", done.stderr[-2000:]
