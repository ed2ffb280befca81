"""Ask a gateway for evidence, unjudged, within limits. Nothing of the application's is in what is sent here."""

import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any
from urllib.parse import urlsplit

import httpx2
from confide_attestation.evidence import MAX_BUNDLE_BYTES
from confide_protocol import labels
from confide_protocol.errors import ConfigError, RelayUnreachable, TooLarge

from confide.answer import media_type
from confide.errors import NotConfide, refused
from confide.session import MAX_ANSWER_BYTES

PORTS = {"http": 80, "https": 443}
# What whatever stands before a gateway may answer while that is away.
_AWAY = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Limits:
    """What a peer can cost. Time-outs of the answer itself are the HTTP library's own."""

    connect_timeout_s: float = 10.0
    evidence_timeout_s: float = 30.0
    recover_s: float = 30.0  # how long a call outlives a gateway or a node that is away; 0: not at all
    max_waiting_threads: int = 32  # of an event loop's calls, those that verify or ask the gateway
    max_connections: int = 1000
    max_idle_connections: int = 100
    max_request_bytes: int = (2 << 20) - (64 << 10)  # with its head it fits the 2 MiB bucket
    max_head_bytes: int = 28 << 10  # with the session's own fields it fits the enclave's 32 KiB
    max_answer_bytes: int = MAX_ANSWER_BYTES


@dataclass(frozen=True)
class Link:
    """How the gateway is reached. Neither TLS nor proxy is trusted with content."""

    tls: ssl.SSLContext | None = None
    proxy: str | None = field(default=None, repr=False)  # its URL may hold a password

    def options(self, url: str) -> dict[str, Any]:
        """Return the arguments of an HTTP transport that goes to `url`."""
        plain = url.startswith("http:") and self.proxy is None
        return {"verify": self.tls or (_nobody() if plain else self._system), "proxy": self.proxy}

    @cached_property
    def _system(self) -> ssl.SSLContext:
        # One for all connections: reading the certificates of the system takes longer than a call.
        return httpx2.create_ssl_context()


@cache
def _nobody() -> ssl.SSLContext:
    """Make the context of connections without TLS: it trusts nobody."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def fetch_evidence(
    url: str,
    nonce: bytes,
    authorization: Mapping[str, str],
    limits: Limits,
    link: Link,
    keyset: bytes | None = None,
) -> bytes:
    """Ask the gateway at `url` for a bundle of evidence that answers `nonce`; blocks.

    `keyset`: from the node that holds it, and from no other.
    Raises: RelayUnreachable, RelayRefused (NotConfide where no gateway of ours listens), TooLarge.
    """
    waits = dict.fromkeys(("read", "write", "pool"), limits.evidence_timeout_s)
    named = f"&keyset={keyset.hex()}" if keyset is not None else ""
    request = httpx2.Request(
        "GET",
        f"{url}{labels.PATH_EVIDENCE}?nonce={nonce.hex()}{named}",
        headers={"accept": labels.MEDIA_EVIDENCE, **authorization},
        extensions={"timeout": {"connect": limits.connect_timeout_s, **waits}},
    )
    deadline_s = time.monotonic() + limits.evidence_timeout_s
    bundle = bytearray()
    try:
        with httpx2.HTTPTransport(**link.options(url)) as transport:
            response = transport.handle_request(request)
            with closing(response):
                _check_head(url, response, keyed=bool(authorization))
                for data in response.iter_raw():
                    bundle += data
                    if len(bundle) > MAX_BUNDLE_BYTES:
                        raise TooLarge("the evidence is larger than its limit")
                    if time.monotonic() > deadline_s:
                        raise RelayUnreachable("the gateway took too long to send the evidence")
    except httpx2.TransportError as fault:
        raise RelayUnreachable(
            f"the gateway at {url} gave no evidence: {why(fault)}; check the URL and that it runs"
        ) from None
    return bytes(bundle)


# The first of these that lies at the bottom of a fault of the network.
_CAUSES: tuple[tuple[type[OSError], str], ...] = (
    (socket.gaierror, "its name cannot be resolved"),
    (
        ssl.SSLCertVerificationError,
        "its TLS certificate is not trusted here, or is another name's: SSL_CERT_FILE or Link(tls=…) name CAs",
    ),
    (ssl.SSLError, "it speaks no TLS that is accepted here"),
    (ConnectionRefusedError, "nobody listens there"),
)


def why(fault: BaseException) -> str:
    """Say what a fault of the network was, never in its own words, which may quote what the gateway sent."""
    at: BaseException | None = fault
    while at is not None:
        for kind, words in _CAUSES:
            if isinstance(at, kind):
                return words
        at = at.__cause__ or at.__context__
    return type(fault).__name__


def _check_head(url: str, response: httpx2.Response, *, keyed: bool) -> None:
    """Demand evidence; tell a refusal of our gateway's from a server that is none."""
    status, media = response.status_code, media_type(response.headers.get("content-type", ""))
    if status == 200 and media == labels.MEDIA_EVIDENCE:
        return
    if status in _AWAY or (media == labels.MEDIA_PROBLEM and status not in (404, 405)):
        raise refused(status)
    sent = "a nonce and the API key were: if that server is not yours, have the key revoked"
    raise NotConfide(
        status,
        f"{url} serves no evidence (it answered {status}): it is a plain OpenAI server or another's, or the URL is "
        f"wrong; no prompt was sent to it, but {sent if keyed else 'a nonce was'}",
    )


def gateway_url(gateway: str) -> str:
    """Return the gateway's URL without `/v1` and slashes at its end. Raises: ConfigError."""
    try:
        parts = urlsplit(gateway)
        usable = parts.scheme in PORTS and parts.hostname and parts.port != 0
    except ValueError:
        usable = None
    if not usable or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError("gateway", "URL", "must be http://host[:port][/path] or https://…, without user or query")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"
