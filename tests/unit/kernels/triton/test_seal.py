"""Pages are sealed as RFC 8439 says, and dropped when a tag is not right."""

import pytest
import torch

from tests.unit.kernels.triton.shared import DEVICE, require_triton

require_triton()
pytest.importorskip("cryptography", reason="cryptography is not installed")
from confide_kernels import seal  # noqa: E402
from confide_kernels.seal import naive  # noqa: E402
from confide_kernels.seal import triton as gpu_seal  # noqa: E402

KEY = bytes(range(0x80, 0xA0))
CONTEXTS = [bytes.fromhex("50515253c0c1c2c3c4c5c6c7"), b"", bytes(range(100))]
NONCES = [bytes([7, 0, 0, 0, *range(0x40, 0x48)]), bytes(12), bytes([255] * 12)]


@pytest.mark.parametrize("implementation", [seal, gpu_seal])
def test_the_vector_of_rfc_8439(implementation) -> None:
    """Section 2.8.2."""
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen "
        b"would be it."
    )
    page = torch.frombuffer(bytearray(text), dtype=torch.uint8)[None].to(DEVICE)
    made = implementation.seal(KEY, NONCES[:1], page, CONTEXTS[:1])
    assert made.data[0].numpy().tobytes().hex().startswith("d31a8d34648e60db7b86afbc53ef7ec2")
    assert made.tags[0].hex() == "1ae10b594f09e26a7e902ecbd0600691"


@pytest.mark.parametrize("size", [1, 4, 63, 64, 65, 1000, 8200])
def test_seal_is_that_of_the_definition(size: int) -> None:
    """Any length, several programs a page; each opens what the other sealed."""
    pages = torch.randint(0, 256, (3, size), dtype=torch.uint8)
    expected, got = naive.seal(KEY, NONCES, pages, CONTEXTS), gpu_seal.seal(KEY, NONCES, pages.to(DEVICE), CONTEXTS)
    assert torch.equal(got.data, expected.data)
    assert (got.nonces, got.tags) == (expected.nonces, expected.tags)
    for unseal, sealed in ((naive.unseal, got), (gpu_seal.unseal, expected)):
        opened = torch.full_like(pages, 9).to(DEVICE)
        assert unseal(KEY, sealed, CONTEXTS, opened) == [True] * 3
        assert torch.equal(opened.cpu(), pages)


@pytest.mark.parametrize("unseal", [naive.unseal, gpu_seal.unseal])
@pytest.mark.parametrize("wrong", ["data", "tag", "nonce", "context", "key"])
def test_a_bad_tag_drops_the_page(unseal, wrong: str) -> None:
    """That page alone, and what was there before does not stay."""
    pages = torch.randint(1, 256, (3, 100), dtype=torch.uint8)
    data, nonces, tags = naive.seal(KEY, NONCES, pages, CONTEXTS)
    key, contexts = KEY, CONTEXTS
    if wrong == "data":
        data[1, 99] ^= 1
    elif wrong == "tag":
        tags = (tags[0], bytes([tags[1][0] ^ 128]) + tags[1][1:], tags[2])
    elif wrong == "nonce":
        nonces = (nonces[0], bytes([1] * 12), nonces[2])
    elif wrong == "context":
        contexts = [CONTEXTS[0], b"x", CONTEXTS[2]]
    else:
        key = bytes(32)
    opened = torch.full_like(pages, 9).to(DEVICE)
    good = unseal(key, naive.Sealed(data, nonces, tags), contexts, opened)
    assert good == ([True, False, True] if wrong != "key" else [False] * 3)
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
        implementation.seal(key, nonces, pages, CONTEXTS[: len(nonces)])


@pytest.mark.parametrize("implementation", [seal, gpu_seal])
def test_every_page_needs_a_context(implementation) -> None:
    with pytest.raises(ValueError, match="context"):
        implementation.seal(KEY, NONCES[:1], torch.zeros(1, 4, dtype=torch.uint8), CONTEXTS)
