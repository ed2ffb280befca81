"""One transport for whichever of httpx and httpx2 a library speaks: it follows the requests that it is given."""

import importlib
from typing import Any

import httpx2
from confide_protocol.errors import LocalStateError

from confide.relay import PolicySource, Relay
from confide.transport import Verified, transports


class _Following(Verified):
    """Hands each request to the transport of its own library; all of them share one relay."""

    colour: int

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self._each: dict[str, Any] = {}

    def _of(self, request: Any) -> Any:  # noqa: ANN401
        name = type(request).__module__.partition(".")[0]
        if name not in self._each:
            if name not in ("httpx", "httpx2"):
                raise LocalStateError(
                    "a verified transport takes requests of httpx and httpx2, and of nothing else"
                )
            kinds = transports(importlib.import_module(name))
            self._each[name] = kinds[self.colour](self.relay.url, relay=self.relay)
        return self._each[name]


class VerifiedTransport(_Following, httpx2.BaseTransport):
    """For `httpx.Client(transport=…)` and `httpx2.Client(transport=…)`."""

    colour = 0

    def handle_request(self, request: Any) -> Any:  # noqa: ANN401
        return self._of(request).handle_request(request)

    def close(self) -> None:
        for each in self._each.values():
            each.close()


class AsyncVerifiedTransport(_Following, httpx2.AsyncBaseTransport):
    """For `httpx.AsyncClient(transport=…)` and `httpx2.AsyncClient(transport=…)`."""

    colour = 1

    async def handle_async_request(self, request: Any) -> Any:  # noqa: ANN401
        return await self._of(request).handle_async_request(request)

    async def aclose(self) -> None:
        for each in self._each.values():
            await each.aclose()


def verified_transport(
    base_url: str,
    *,
    policy: PolicySource = None,
    relay: Relay | None = None,
    **options: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401 - of both libraries, and so of neither's type
    """Return a transport that seals what a sync client of httpx or httpx2 sends, and verifies what comes back.

    `base_url` is the gateway, with or without `/v1`; `policy` a local file. `options`: `api_key`,
    `allow_simulated`, `memory`, `limits`, `link` (see `confide.Relay`). With `relay`, trust is shared with whatever
    else has it. It goes into any library that takes an HTTP client:

        ChatOpenAI(base_url=…, http_client=httpx.Client(transport=confide.verified_transport(…)))

    Raises: PolicyError, ConfigError, before anything is sent.
    """
    return VerifiedTransport(relay or Relay(base_url, policy, **options))


def async_verified_transport(
    base_url: str,
    *,
    policy: PolicySource = None,
    relay: Relay | None = None,
    **options: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Return the same for async clients, in any number of event loops."""
    return AsyncVerifiedTransport(relay or Relay(base_url, policy, **options))
