"""Ask llama.cpp's server beside the enclave, as the enclave asks it, and read what the enclave does not pass on."""

import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

from confide_enclave.engine import ChatMessage, Sampling
from confide_enclave.engine.tokens import Tokens
from confide_enclave.remote.card import read_vocabulary
from confide_enclave.remote.http import Client
from confide_enclave.remote.servers import SERVERS

from tests.servers.stack import CONNECT_TIMEOUT_S, RemoteStack


class Spy:
    """With the key that the enclave gave it: only root of this machine sees that."""

    def __init__(self, stack: RemoteStack, weights: Path) -> None:
        (socket,) = stack.rooms.glob("confide-engine-*/llama.sock")
        given = Path(f"/proc/{stack.server_pid}/environ").read_bytes().split(b"\0")
        (key,) = (each.partition(b"=")[2] for each in given if each.startswith(b"LLAMA_API_KEY="))
        self._client = Client(f"unix:{socket}", key.decode(), CONNECT_TIMEOUT_S)
        self._tokens = Tokens(read_vocabulary(weights))

    def count(self, messages: list[dict[str, str]]) -> int:
        return len(self._encode(messages))

    def ask(self, messages: list[dict[str, str]], salt: bytes, **more: Any) -> tuple[int, int]:
        """Return how many of the prompt's tokens it had from a cache, and how many it read."""
        prompt, wire = self._encode(messages), SERVERS["llama.cpp"].wire
        sampling = Sampling(0.0, 1.0, 2, 1)
        asked = json.loads(wire.write("", prompt, sampling, 2, self._tokens.end_ids, salt.hex()))
        body = {name: value for name, value in (asked | more).items() if name != "response_fields"}
        last = asyncio.run(self._last(json.dumps(body).encode(), wire.path))
        return last["timings"]["cache_n"], last["timings"]["prompt_n"]

    def _encode(self, messages: list[dict[str, str]]) -> list[int]:
        return self._tokens.encode([ChatMessage("user", each["content"]) for each in messages])

    async def _last(self, body: bytes, path: str) -> dict[str, Any]:
        async with aclosing(self._client.post(path, body)) as pieces:
            said = b"".join([piece async for piece in pieces])
        last: dict[str, Any] = json.loads(said.strip().rpartition(b"data: ")[2])
        return last
