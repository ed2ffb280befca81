"""Many conversations at once over one sealed client of each colour, and what became of every call."""

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import confide
from confide_protocol.errors import ConfideError

from tests.fakes.stack import Stack

MESSAGES = [{"role": "user", "content": "Count to three."}]
LIMIT_S = 60
LISTS = 2
"""Requests beside the calls that are counted: each client's first, for the list of models."""
ASKED: dict[str, Any] = {"model": "smollm2-135m-instruct", "messages": MESSAGES, "temperature": 0}


@dataclass
class Storm:
    """Half of the conversations are threads, half are tasks; each asks again as soon as it was answered."""

    stack: Stack
    conversations: int = 50
    max_tokens: int = 8
    whole: int = 0
    begun: Counter[str] = field(default_factory=Counter)
    unbegun: Counter[str] = field(default_factory=Counter)
    keysets: set[bytes] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _verified: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> "Storm":
        self.client = self.stack.openai(timeout=120)
        self.client.models.list()
        half = self.conversations // 2
        self._threads = [threading.Thread(target=self._converse) for _ in range(half)]
        self._threads.append(threading.Thread(target=lambda: asyncio.run(self._tasks(half))))
        for thread in self._threads:
            thread.start()
        # First contact is not repeated: what befalls the stack may come only after both clients have verified it.
        assert self._verified.wait(LIMIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def calls(self) -> int:
        return self.whole + self.begun.total() + self.unbegun.total()

    def wait_for(self, more: int, limit_s: float) -> None:
        """Wait until so many more calls were answered."""
        goal, deadline_s = self.whole + more, time.monotonic() + limit_s
        while self.whole < goal:
            assert time.monotonic() < deadline_s, (self.whole, goal, self.begun, self.unbegun)
            time.sleep(0.05)

    def _ended(self, client: Any, shown: int, fault: Exception | None) -> None:
        with self._lock:
            if fault is None:
                self.whole += 1
                self.keysets.add(client.last_receipt.claims.keyset_digest)
            else:
                # One typed error of ours, or the name of what it should not have been.
                name = type(fault).__name__ if isinstance(fault, ConfideError) else f"NOT OURS: {fault!r}"
                (self.begun if shown else self.unbegun)[name] += 1

    def _converse(self) -> None:
        while not self._stop.is_set():
            shown, fault = 0, None
            try:
                for _ in self.client.chat.completions.create(**ASKED, max_tokens=self.max_tokens, stream=True):
                    shown += 1
            except Exception as error:  # noqa: BLE001 - the test looks at its kind
                fault = error
            self._ended(self.client, shown, fault)

    async def _tasks(self, count: int) -> None:
        async with confide.AsyncOpenAI(**self.stack.options(timeout=120)) as client:
            await client.models.list()
            self._verified.set()
            await asyncio.gather(*(self._converse_async(client) for _ in range(count)))

    async def _converse_async(self, client: Any) -> None:
        while not self._stop.is_set():
            shown, fault = 0, None
            try:
                stream = await client.chat.completions.create(**ASKED, max_tokens=self.max_tokens, stream=True)
                async for _ in stream:
                    shown += 1
            except Exception as error:  # noqa: BLE001 - the test looks at its kind
                fault = error
            self._ended(client, shown, fault)
