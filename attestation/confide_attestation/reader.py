"""Read binary structures of stated lengths; makes no trust claim."""

from typing import Literal

from confide_attestation.errors import EvidenceMalformed


class Reader:
    """Takes bytes in order; those that are not there are EvidenceMalformed with `check`. `what` names the input."""

    def __init__(self, data: bytes, *, what: str, check: str, order: Literal["little", "big"]) -> None:
        self.data = data
        self.at = 0
        self._what, self._check = what, check
        self._order: Literal["little", "big"] = order

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise EvidenceMalformed(
                f"{self._what} ends at byte {len(self.data)}, its own lengths say {self.at + size}", self._check
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def uint(self, size: int) -> int:
        return int.from_bytes(self.take(size), self._order)

    def within(self, size: int) -> "Reader":
        """Take `size` bytes as a structure of their own."""
        return Reader(self.take(size), what=self._what, check=self._check, order=self._order)
