"""One HTTP response at a time, and nothing else on its connection."""

import pytest
from confide_enclave.remote.errors import EngineMalformed
from confide_enclave.remote.http import _Response

ONE = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"
UPGRADE = b"Upgrade: x\r\nConnection: upgrade\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 101 Switching\r\n" + UPGRADE + b"\r\nabc",
        ONE + b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ndef",
        ONE + b"H",
        ONE + b"def",
    ],
)
def test_another_protocol_or_another_answer_is_malformed(data) -> None:
    """No error of the parser's own comes out, and no second body is joined to the first."""
    with pytest.raises(EngineMalformed):
        _Response().push(data)


def test_one_answer_is_read_to_its_end() -> None:
    """However it is cut."""
    for size in (1, 7, len(ONE)):
        response = _Response()
        pieces = [piece for at in range(0, len(ONE), size) for piece in response.push(ONE[at : at + size])]
        assert (b"".join(pieces), response.complete) == (b"abc", True)
