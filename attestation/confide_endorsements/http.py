"""One bounded HTTP client for vendors' services: nothing grows, waits for ever or is sent elsewhere."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import anyio
import httpx2
from confide_attestation.errors import EndorsementsUnavailable

MAX_REDIRECTS = 3
# What a later attempt may cure: the service is busy, restarting or behind something that is.
TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True)
class Limits:
    """Bounds of one document; `total_s` covers every attempt and every wait for it."""

    body_bytes: int = 2 << 20
    connect_s: float = 10
    read_s: float = 20
    total_s: float = 90
    attempts: int = 4
    first_wait_s: float = 1


@dataclass(frozen=True)
class Answer:
    """A 200: its header fields by lower-case names, and its body."""

    fields: Mapping[str, str]
    body: bytes


class Http:
    """Asks for documents; `what` names one in errors, which never show a body.

    Only https, but for the origins of `plain`: base URLs that the caller configured with http. Redirects stay with
    the host that was asked.
    Raises: EndorsementsUnavailable.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        plain: Sequence[str] = (),
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self.limits = limits or Limits()
        self._plain = {_origin(httpx2.URL(base)) for base in plain}
        self._next_at: dict[tuple[str, str, int | None], float] = {}
        self._sleep = sleep

    async def get(
        self, url: str, what: str, fields: Mapping[str, str] | None = None, *, spacing_s: float = 0
    ) -> Answer:
        """Get a document; `spacing_s` keeps this and the next such request to the host that far apart."""
        return await self._ask("GET", url, what, fields or {}, b"", spacing_s)

    async def post(self, url: str, what: str, fields: Mapping[str, str], body: bytes) -> Answer:
        return await self._ask("POST", url, what, fields, body, 0)

    async def _ask(
        self, method: str, url: str, what: str, fields: Mapping[str, str], body: bytes, spacing_s: float
    ) -> Answer:
        limits = self.limits
        try:
            target = httpx2.URL(url)
        except httpx2.InvalidURL:
            raise EndorsementsUnavailable(what, url, "that is no URL") from None
        if target.scheme != "https" and _origin(target) not in self._plain:
            raise EndorsementsUnavailable(what, url, "only https is asked")
        reason = ""
        with anyio.move_on_after(limits.total_s) as scope:
            for attempt in range(limits.attempts):
                await self._pace(target, spacing_s)
                reason, wait_s, answer = await self._attempt(method, target, url, what, fields, body)
                if answer is not None:
                    return answer
                if wait_s is not None and anyio.current_time() + wait_s > scope.deadline:
                    reason += f" and asks to wait {wait_s:.0f} s, longer than is waited here"
                    break
                if attempt + 1 < limits.attempts:
                    await self._sleep(limits.first_wait_s * 2**attempt if wait_s is None else wait_s)
        if scope.cancelled_caught:
            reason = f"there was no whole answer within {limits.total_s:g} s" + (f"; {reason}" if reason else "")
        raise EndorsementsUnavailable(what, url, reason)

    async def _pace(self, target: httpx2.URL, spacing_s: float) -> None:
        if not spacing_s:
            return
        origin, now = _origin(target), time.monotonic()
        turn = max(now, self._next_at.get(origin, now))
        self._next_at[origin] = turn + spacing_s
        if turn > now:
            await self._sleep(turn - now)

    async def _attempt(
        self, method: str, target: httpx2.URL, url: str, what: str, fields: Mapping[str, str], body: bytes
    ) -> tuple[str, float | None, Answer | None]:
        """Ask once: an answer, or why there is none and how long the service wants to be left alone."""
        timeout = httpx2.Timeout(self.limits.read_s, connect=self.limits.connect_s)
        try:
            # A proxy of the environment is for the internet, not for this machine and its neighbours.
            proxied = target.scheme == "https"
            async with httpx2.AsyncClient(timeout=timeout, follow_redirects=False, trust_env=proxied) as client:
                for _ in range(MAX_REDIRECTS + 1):
                    headers = {"accept-encoding": "identity", **fields}
                    async with client.stream(method, target, headers=headers, content=body or None) as response:
                        if response.status_code in _REDIRECTS:
                            target = self._redirected(target, response, url, what)
                            continue
                        if response.status_code in TRANSIENT:
                            reason = f"the service answered {response.status_code}"
                            return reason, _retry_after(response.headers.get("retry-after")), None
                        if response.status_code != 200:
                            because = f"the service answered {response.status_code}"
                            raise EndorsementsUnavailable(what, url, because)
                        return "", None, Answer(dict(response.headers), await self._body(response, url, what))
            raise EndorsementsUnavailable(what, url, f"the service redirects more than {MAX_REDIRECTS} times")
        except httpx2.TimeoutException:
            return "the service did not answer in time", None, None
        except (httpx2.TransportError, httpx2.StreamError):
            return "the service cannot be reached, or breaks off", None, None

    async def _body(self, response: httpx2.Response, url: str, what: str) -> bytes:
        parts, size = [], 0
        # Raw: a compressed body could be far larger than what is counted.
        async for part in response.aiter_raw():
            size += len(part)
            if size > self.limits.body_bytes:
                because = f"the answer is larger than {self.limits.body_bytes} bytes"
                raise EndorsementsUnavailable(what, url, because)
            parts.append(part)
        return b"".join(parts)

    def _redirected(self, target: httpx2.URL, response: httpx2.Response, url: str, what: str) -> httpx2.URL:
        try:
            following = target.join(response.headers.get("location", ""))
        except httpx2.InvalidURL:
            following = httpx2.URL("invalid:")
        if _origin(following) != _origin(target) or response.request.method != "GET":
            raise EndorsementsUnavailable(what, url, "the service redirects to another place")
        return following


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _retry_after(value: str | None) -> float | None:
    """Read Retry-After: seconds or a date (RFC 9110 section 10.2.3); None if it says nothing sound."""
    if value is None:
        return None
    if value.isascii() and value.isdigit() and len(value) < 8:
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
