"""Pages: wiped to the last byte, sealed as RFC 8439 says, and dropped when a tag is not right."""

import pytest
import torch
from confide_kernels import seal, wipe
from confide_kernels.seal import naive

from tests.unit.kernels.triton.shared import DEVICE, check, on_device, require_triton

require_triton()
from confide_kernels.seal import triton as gpu_seal  # noqa: E402
from confide_kernels.wipe import triton as gpu_wipe  # noqa: E402

PAGES, PAGE_ROWS = 5, 3


@pytest.mark.parametrize(("kv_heads", "width"), [(1, 4), (3, 20), (2, 1000)])
@pytest.mark.parametrize("dtype", [torch.int8, torch.float16, torch.float32])
@pytest.mark.parametrize("pages", [[], [4], [3, 0, 1]])
def test_wipe(kv_heads: int, width: int, dtype: torch.dtype, pages: list[int]) -> None:
    """In every layer, keys and values and their tops; not a byte of another page."""
    data = torch.randint(1, 100, (2, 2, PAGES * PAGE_ROWS, kv_heads, width)).to(dtype)
    tops = torch.rand(2, 2, kv_heads, PAGES * PAGE_ROWS) + 1
    check(gpu_wipe.wipe, wipe.wipe, data, tops, torch.tensor(pages, dtype=torch.int64), PAGE_ROWS)
    device_data, device_tops = on_device((data, tops))
    gpu_wipe.wipe(device_data, device_tops, torch.tensor(pages, dtype=torch.int64, device=DEVICE), PAGE_ROWS)
    rows = (device_data.cpu() == 0).all(-1).all(-1)
    assert rows.view(4, PAGES, PAGE_ROWS).all(-1).sum(1).tolist() == [len(pages)] * 4


def test_pages_that_are_not_there_are_left_out() -> None:
    data, tops = on_device((torch.ones(1, 2, 6, 1, 4, dtype=torch.int8), torch.ones(1, 2, 1, 6)))
    gpu_wipe.wipe(data, tops, torch.tensor([-1, 2, 1], device=DEVICE), PAGE_ROWS)
    assert data[:, :, :3].all()
    assert not data[:, :, 3:].any()


def test_a_cache_of_odd_pages_is_refused() -> None:
    with pytest.raises(ValueError, match="whole pages"):
        gpu_wipe.wipe(*on_device((torch.ones(1, 2, 7, 1, 4), torch.ones(1, 2, 1, 7))), torch.tensor([0]), PAGE_ROWS)
    with pytest.raises(ValueError, match="contiguous"):
        gpu_wipe.wipe(
            torch.ones(2, 2, 6, 1, 4).transpose(0, 1), torch.ones(2, 2, 1, 6), torch.tensor([0]), PAGE_ROWS
        )


KEY, CONTEXT = bytes(range(0x80, 0xA0)), bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
NONCES = [bytes([7, 0, 0, 0, *range(0x40, 0x48)]), bytes(12), bytes([255] * 12)]


@pytest.mark.parametrize("implementation", [seal, gpu_seal])
def test_the_vector_of_rfc_8439(implementation) -> None:
    """Section 2.8.2."""
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen "
        b"would be it."
    )
    page = torch.frombuffer(bytearray(text), dtype=torch.uint8)[None].to(DEVICE)
    made = implementation.seal(KEY, NONCES[:1], page, CONTEXT)
    assert made.data[0].numpy().tobytes().hex().startswith("d31a8d34648e60db7b86afbc53ef7ec2")
    assert made.tags[0].hex() == "1ae10b594f09e26a7e902ecbd0600691"


@pytest.mark.parametrize("size", [1, 4, 63, 64, 65, 1000, 8200])
def test_seal_is_that_of_the_definition(size: int) -> None:
    """Any length, several programs a page; each opens what the other sealed."""
    pages = torch.randint(0, 256, (3, size), dtype=torch.uint8)
    expected, got = naive.seal(KEY, NONCES, pages, CONTEXT), gpu_seal.seal(KEY, NONCES, pages.to(DEVICE), CONTEXT)
    assert torch.equal(got.data, expected.data)
    assert (got.nonces, got.tags) == (expected.nonces, expected.tags)
    for unseal, sealed in ((naive.unseal, got), (gpu_seal.unseal, expected)):
        opened = torch.full_like(pages, 9).to(DEVICE)
        assert unseal(KEY, sealed, CONTEXT, opened) == [True] * 3
        assert torch.equal(opened.cpu(), pages)


@pytest.mark.parametrize("unseal", [naive.unseal, gpu_seal.unseal])
@pytest.mark.parametrize("wrong", ["data", "tag", "nonce", "context", "key"])
def test_a_bad_tag_drops_the_page(unseal, wrong: str) -> None:
    """That page alone, and what was there before does not stay."""
    pages = torch.randint(1, 256, (3, 100), dtype=torch.uint8)
    data, nonces, tags = naive.seal(KEY, NONCES, pages, CONTEXT)
    key, context = KEY, CONTEXT
    if wrong == "data":
        data[1, 99] ^= 1
    elif wrong == "tag":
        tags = (tags[0], bytes([tags[1][0] ^ 128]) + tags[1][1:], tags[2])
    elif wrong == "nonce":
        nonces = (nonces[0], bytes([1] * 12), nonces[2])
    elif wrong == "context":
        context += b"x"
    else:
        key = bytes(32)
    opened = torch.full_like(pages, 9).to(DEVICE)
    good = unseal(key, naive.Sealed(data, nonces, tags), context, opened)
    assert good == ([True, False, True] if wrong in ("data", "tag", "nonce") else [False] * 3)
    for page, plain, own in zip(opened.cpu(), pages, good, strict=True):
        assert torch.equal(page, plain if own else torch.zeros_like(plain))


@pytest.mark.parametrize("implementation", [seal, gpu_seal])
@pytest.mark.parametrize(
    ("key", "nonces", "pages", "reason"),
    [
        (bytes(31), NONCES[:1], torch.zeros(1, 4, dtype=torch.uint8), "32 bytes"),
        (KEY, [bytes(11)], torch.zeros(1, 4, dtype=torch.uint8), "12 bytes"),
        (KEY, NONCES, torch.zeros(1, 4, dtype=torch.uint8), "12 bytes"),
        (KEY, [bytes(12)] * 2, torch.zeros(2, 4, dtype=torch.uint8), "twice"),
        (KEY, NONCES[:1], torch.zeros(1, 4, dtype=torch.int8), "rows of bytes"),
    ],
)
def test_what_cannot_be_sealed_is_refused(implementation, key, nonces, pages, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        implementation.seal(key, nonces, pages, CONTEXT)
