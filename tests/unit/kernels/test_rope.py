"""Rotary embedding against complex multiplication in float64, and storing what was turned."""

import hashlib
from typing import NamedTuple

import pytest
import torch
from confide_kernels.gemm import Product
from confide_kernels.rope import Cache, Heads, compiled, naive, rotate_store, table
from confide_kernels.rope.naive import rotate
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.fakes import numbers
from tests.fakes.numbers import NOT_FINITE, same

VERSIONS = pytest.mark.parametrize("rotate_store", [naive.rotate_store, compiled.rotate_store, rotate_store])
ROWS, POSITIONS = 40, 70
NONE = Heads(None, None, None, 1e-6)


class Scene(NamedTuple):
    """Arguments of `rotate_store`, with a cache that another sequence has filled."""

    qkv: Product
    heads: Heads
    turns: Tensor
    positions: Tensor
    cache: Cache
    rows: Tensor

    def run(self, rotate_store) -> tuple[Tensor, ...]:
        """Return queries, their tops, and what the cache then holds, a copy."""
        cache = Cache(*(each.clone() for each in self.cache))
        return *rotate_store(*self._replace(cache=cache)), *cache

    def only(self, i: int) -> "Scene":
        one = slice(i, i + 1)
        return self._replace(
            qkv=self.qkv.rows(torch.tensor([i])), positions=self.positions[one], rows=self.rows[one]
        )


def scene(
    n: int, queries: int, kv_heads: int, head_dim: int, *, parts: tuple[bool, bool, bool], octaves: int = 0
) -> Scene:
    """`parts`: whether there is a bias, a norm of queries, and one of keys."""
    out = (queries + 2 * kv_heads) * head_dim
    sums = torch.randint(-(2**20), 2**20, (n, out), dtype=torch.int32)
    qkv = (
        numbers.product(n, out, octaves) if octaves else Product(sums * (torch.rand(out) / 2**18), torch.rand(n, 1))
    )
    weights = (torch.randn(out), torch.rand(head_dim), torch.rand(head_dim))
    cache = Cache(
        torch.randint(-127, 128, (2, ROWS, kv_heads, head_dim), dtype=torch.int8), torch.rand(2, kv_heads, ROWS)
    )
    heads = Heads(*(weight if has else None for has, weight in zip(parts, weights, strict=True)), 1e-6)
    positions, rows = torch.randint(0, POSITIONS, (n,)), torch.randperm(ROWS)[:n]
    return Scene(qkv, heads, table(POSITIONS, head_dim, 1e4), positions, cache, rows)


def turn(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """Turn [n, heads, head_dim]: pair (i, i + d/2) by position * base^(-2i/d), as complex numbers."""
    head_dim = x.shape[-1]
    angle = positions[:, None].double() * base ** (-torch.arange(0, head_dim, 2).double() / head_dim)
    real, imaginary = x.double().chunk(2, -1)
    turned = torch.complex(real, imaginary) * torch.polar(torch.ones_like(angle), angle)[:, None]
    return torch.cat([turned.real, turned.imag], -1)


def definition(given: Scene) -> Tensor:
    """Return queries, keys and values, [n, heads, head_dim] float64."""
    _, _, kv_heads, head_dim = given.cache.data.shape
    x = given.qkv.columns.double() * given.qkv.tops.double()
    x = (x if given.heads.bias is None else x + given.heads.bias.double()).view(len(x), -1, head_dim)
    queries, keys, values = x.split([x.shape[1] - 2 * kv_heads, kv_heads, kv_heads], 1)

    def norm(part: Tensor, weight: Tensor | None) -> Tensor:
        if weight is None:
            return part
        return part / (part.square().mean(-1, keepdim=True) + given.heads.epsilon).sqrt() * weight.double()

    queries, keys = norm(queries, given.heads.q_norm), norm(keys, given.heads.k_norm)
    return torch.cat([turn(torch.cat([queries, keys], 1), given.positions, 1e4), values], 1)


@pytest.mark.parametrize(("heads", "head_dim"), [(1, 2), (3, 10), (9, 64)])
def test_rotate(heads: int, head_dim: int) -> None:
    """Each pair (i, i + d/2) turns by position * base^(-2i/d), as complex numbers do."""
    positions, base = torch.tensor([0, 1, 7, 500]), 1e5
    x = torch.randn(len(positions), heads, head_dim)
    out = rotate(x.clone(), table(501, head_dim, base)[positions])
    torch.testing.assert_close(out.double(), turn(x, positions, base), rtol=1e-5, atol=1e-5)


def test_rotate_is_in_place() -> None:
    """A strided view is turned where it lies, and its neighbours stay."""
    qkv = torch.randn(3, 8, 16)
    before, turns = qkv.clone(), table(3, 16, 1e4)
    rotate(qkv[:, :5], turns)
    assert torch.equal(qkv[:, :5], rotate(before[:, :5].contiguous(), turns))
    assert torch.equal(qkv[:, 5:], before[:, 5:])


@VERSIONS
@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (7, 9, 3, 64), (30, 4, 4, 10), (3, 16, 8, 128)])
@pytest.mark.parametrize("parts", [(False,) * 3, (True, False, False), (False, True, True), (True,) * 3])
def test_rotate_store(rotate_store, shape: tuple[int, int, int, int], parts: tuple[bool, bool, bool]) -> None:
    """Queries are the definition's up to half a level; keys and values land in their rows, and in no other."""
    given = scene(*shape, parts=parts)
    n, queries, kv_heads, head_dim = shape
    levels, tops, data, data_tops = given.run(rotate_store)
    assert (levels.shape, tops.shape) == ((n, queries, head_dim), (n, queries))
    kept = data[:, given.rows].double() * data_tops[..., given.rows].transpose(1, 2)[..., None].double() / 127
    found = torch.cat([levels.double() * tops[..., None].double() / 127, kept[0], kept[1]], 1)
    expected = definition(given)
    bound = expected.abs().amax(-1, keepdim=True) * (0.501 / 127) + 1e-5
    assert ((found - expected).abs() <= bound).all()
    others = torch.ones(ROWS, dtype=torch.bool).index_fill_(0, given.rows, False)
    assert torch.equal(data[:, others], given.cache.data[:, others])
    assert torch.equal(data_tops[..., others], given.cache.tops[..., others])
    assert kv_heads * 2 + queries == found.shape[1]


@settings(max_examples=150, deadline=None)
@given(
    n=st.integers(1, 20),
    kv_heads=st.integers(1, 4),
    group=st.integers(1, 5),
    half=st.sampled_from([1, 2, 5, 8, 32, 40, 64, 128]),
    bias=st.booleans(),
    normed=st.booleans(),
    octaves=st.integers(1, 20),
    seed=st.integers(0, 2**32),
)
def test_both_versions_give_the_same_bits(
    n: int, kv_heads: int, group: int, half: int, bias: bool, normed: bool, octaves: int, seed: int
) -> None:
    """Whatever a family does to its heads, of numbers of any size, into scattered rows."""
    torch.manual_seed(seed)
    given = scene(n, kv_heads * group, kv_heads, 2 * half, parts=(bias, normed, normed), octaves=octaves)
    found = given.run(compiled.rotate_store)
    assert same(found, given.run(naive.rotate_store))
    assert all(each.ne(-128).all() for each in (found[0], found[2]))


@pytest.mark.parametrize("parts", [(False, True, False), (False, False, True)])
def test_a_norm_of_queries_or_of_keys_alone(parts: tuple[bool, bool, bool]) -> None:
    """Each norm is its own: where there is none, heads are not normed, and no memory is taken for its weight."""
    given = scene(3, 4, 2, 16, parts=parts)
    assert same(given.run(compiled.rotate_store), given.run(naive.rotate_store))


@VERSIONS
@pytest.mark.parametrize("parts", [(False,) * 3, (True,) * 3])
@pytest.mark.parametrize("kind", NOT_FINITE)
def test_a_row_does_not_see_its_neighbours(rotate_store, kind: str, parts: tuple[bool, bool, bool]) -> None:
    """A row that is not finite says so in every top of its own, and changes no bit of another."""
    given = scene(4, 6, 2, 16, parts=parts)
    given.qkv.columns[given.qkv.columns == 0] = 1
    alone = given.only(3).run(rotate_store)
    for row in (0, 2):
        numbers.spoil(given.qkv.tops, (row, 0), kind)
    levels, tops, data, data_tops = given.run(rotate_store)
    assert not tops[[0, 2]].isfinite().any()
    assert not data_tops[..., given.rows[[0, 2]]].isfinite().any()
    row = given.rows[3]
    assert same((levels[3:], tops[3:]), alone[:2])
    assert same((data[:, row], data_tops[..., row]), (alone[2][:, row], alone[3][..., row]))
    assert levels.ne(-128).all()
    assert data.ne(-128).all()


@VERSIONS
@pytest.mark.parametrize("at", [0, 3, 7])
@pytest.mark.parametrize("head", range(4))
def test_one_number_that_is_none_shows_in_its_head(rotate_store, at: int, head: int) -> None:
    """Wherever NaN stands in a head, that head's top is NaN, with a norm and without; others' are not."""
    for parts in ((False,) * 3, (False, True, True)):
        given = scene(1, 2, 1, 8, parts=parts)
        given.qkv.columns[:, head * 8 + at] = torch.nan
        _, tops, _, data_tops = given.run(rotate_store)
        found = torch.cat([tops[0], data_tops[:, 0, given.rows[0]]])
        assert found.isnan().tolist() == [number == head for number in range(4)]


@VERSIONS
@pytest.mark.parametrize(("name", "value"), [("positions", POSITIONS), ("positions", -1), ("rows", ROWS)])
@pytest.mark.parametrize("at", [0, 2])
def test_what_is_outside_is_refused(rotate_store, name: str, value: int, at: int) -> None:
    """A position that the table lacks, or a row that the cache lacks, is an error."""
    given = scene(3, 4, 2, 16, parts=(False,) * 3)
    getattr(given, name)[at] = value
    with pytest.raises(IndexError):
        rotate_store(*given)


@pytest.mark.parametrize("value", [-1, -ROWS, ROWS + POSITIONS, -(2**62), 2**62])
@pytest.mark.parametrize("name", ["positions", "rows"])
def test_nothing_is_written_before_a_refusal(name: str, value: int) -> None:
    """Wherever it is, the cache stays as it was; a negative row is none from the end."""
    given = scene(3, 4, 2, 16, parts=(False,) * 3)
    getattr(given, name)[2] = value
    before = Cache(*(each.clone() for each in given.cache))
    with pytest.raises(IndexError, match=r"a position is outside the table|a row is outside the cache"):
        rotate_store(*given)
    assert same(given.cache, before)


def test_the_table_is_pinned() -> None:
    """Receipts depend on these bits; a longer table starts with the same."""
    turns = table(1_000, 64, 1e5)
    assert torch.equal(table(3_000, 64, 1e5)[:1_000], turns)
    assert (
        hashlib.sha256(turns.numpy().tobytes()).hexdigest()
        == "c5cf6587649d152c7654766e1720a743ab3eec0a80da246eacdadaaf83d2f86f"
    )
