"""Who may call, and how much at once."""

import asyncio
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from confide_protocol import labels
from confide_protocol.errors import ConfigError

from confide_gateway.keys import KeyFile, load_keys
from confide_gateway.logs import Log

RELOAD_S = 1.0


@dataclass
class Account:
    """One API key's holder while the gateway runs; its count survives a reload of the file.

    `outward` are the header fields that an enclave sees of the caller, `outward_sealed` those of a sealed request.
    """

    label: str
    max_concurrency: int
    in_flight: Counter[bool] = field(default_factory=Counter)
    outward: tuple[tuple[str, str], ...] = field(init=False)
    outward_sealed: tuple[tuple[str, str], ...] = field(init=False)

    def __post_init__(self) -> None:
        self.outward = ((labels.FIELD_ACCOUNT, self.label),)
        self.outward_sealed = (*self.outward, ("content-type", labels.MEDIA_REQUEST), ("incremental", "?1"))

    def acquire(self, *, evidence: bool) -> bool:
        """Take a place. Evidence has as many of its own: clients renew it while their calls are under way."""
        if self.in_flight[evidence] >= self.max_concurrency:
            return False
        self.in_flight[evidence] += 1
        return True

    def release(self, *, evidence: bool) -> None:
        self.in_flight[evidence] -= 1


class Accounts:
    """Accounts by the digest of their key.

    The lookup's time depends on digests alone, and nobody can steer a SHA-256 towards a stored one.
    """

    def __init__(self, file: KeyFile) -> None:
        self._by_digest: dict[bytes, Account] = {}
        self.replace(file)

    def replace(self, file: KeyFile) -> None:
        known = {account.label: account for account in self._by_digest.values()}
        fresh = {}
        for key in file.keys:
            account = known.get(key.label) or Account(key.label, key.max_concurrency)
            account.max_concurrency = key.max_concurrency
            fresh[bytes.fromhex(key.sha256)] = account
        self._by_digest = fresh

    def authenticate(self, authorization: bytes | None) -> Account | None:
        """Find the account of an `authorization` field's value; None for anything but a known bearer key."""
        if authorization is None or authorization[:7].lower() != b"bearer ":
            return None
        return self._by_digest.get(hashlib.sha256(authorization[7:]).digest())

    async def follow(self, path: Path, log: Log) -> None:
        """Take up changes of the file as they are made; a broken file changes nothing and is logged."""
        seen = _stamp(path)
        while True:
            await asyncio.sleep(RELOAD_S)
            stamp = _stamp(path)
            if stamp == seen:
                continue
            seen = stamp
            try:
                self.replace(load_keys(path))
            except ConfigError as fault:
                log.warning("keys_unreadable", file=str(path), field=fault.field)
            else:
                log.info("keys_reloaded", accounts=len(self._by_digest))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
