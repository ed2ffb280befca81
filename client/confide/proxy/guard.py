"""Who may ask the proxy: this machine's own programs, and no web page that a browser was made to load."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from confide_protocol.errors import ConfideError


class Refused(ConfideError):
    """The proxy itself says no; nothing was sent."""

    def __init__(self, status: int, code: str, message: str, *, retry: bool = False) -> None:
        super().__init__(message)
        self.status, self.name, self.retry = status, code, retry

    code: ClassVar[str] = "proxy_refused"


@dataclass(frozen=True)
class Guard:
    """`hosts`: the names under which the proxy may be asked; empty on a unix socket, where no browser comes.

    `tokens`: what a caller may show as API key; empty: nothing is asked for.
    """

    hosts: frozenset[str]
    tokens: tuple[str, ...] = field(default=(), repr=False)
    token_file: str = ""

    @classmethod
    def on_port(cls, port: int, tokens: tuple[str, ...] = (), token_file: str = "") -> "Guard":
        names = ("127.0.0.1", "localhost", "[::1]")
        hosts = {f"{name}:{port}" for name in names} | (set(names) if port == 80 else set())
        return cls(frozenset(hosts), tokens, token_file)

    def check_place(self, headers: Mapping[str, str]) -> None:
        """Raises: Refused for a name that is not this machine's (DNS rebinding), and for another site's page."""
        if not self.hosts:
            return
        if headers.get("host", "").lower() not in self.hosts:
            raise Refused(
                421, "wrong_host", "Ask this proxy as http://127.0.0.1 or http://localhost, with its port."
            )
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in {f"http://{host}" for host in self.hosts}:
            raise Refused(403, "foreign_origin", "Pages of other origins may not use this proxy.")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Refused(403, "foreign_origin", "Pages of other sites may not use this proxy.")

    def knows(self, headers: Mapping[str, str]) -> bool:
        """Whether the caller may see what was answered before: to a socket only its owner comes."""
        return self._shows_token(headers) if self.hosts else True

    def _shows_token(self, headers: Mapping[str, str]) -> bool:
        given = headers.get("authorization", "").removeprefix("Bearer ").encode("utf-8", "surrogateescape")
        return any(hmac.compare_digest(given, each.encode()) for each in self.tokens)

    def check_token(self, headers: Mapping[str, str]) -> None:
        """Raises: Refused unless the API key is one of the tokens."""
        if self.tokens and not self._shows_token(headers):
            raise Refused(
                401,
                "wrong_token",
                f"Give the proxy's token as API key: it is in {self.token_file} on this machine.",
            )
