"""The way to an enclave: fetch its evidence through the gateway, verify once for all callers, renew in time.

Holds what the transports of every HTTP library share. Blocking: an event loop calls `ready` in a worker thread.
"""

import os
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from confide_attestation.evidence import MAX_BUNDLE_BYTES
from confide_attestation.policy import AppraisalPolicy, load_policy
from confide_attestation.result import AttestationResult, AttestedKeyset
from confide_protocol import labels
from confide_protocol.errors import (
    ConfideError,
    ConfigError,
    LocalStateError,
    PolicyError,
    RelayRefused,
    RelayUnreachable,
    TooLarge,
)
from confide_protocol.settings import MAX_SETTINGS_BYTES

from confide.policy_memory import PolicyMemory, default_path
from confide.session import MAX_ANSWER_BYTES, Call, ClientSession, Exchange, Receipt

RENEW_RETRY_S = 60
_PORTS = {"http": 80, "https": 443}

PolicySource = AppraisalPolicy | str | os.PathLike[str] | None


@dataclass(frozen=True)
class Limits:
    """What a peer can cost. Time-outs of the answer itself are the HTTP library's own."""

    connect_timeout_s: float = 10.0
    evidence_timeout_s: float = 30.0
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

    @property
    def options(self) -> dict[str, Any]:
        return {"verify": self.tls or True, "proxy": self.proxy}


def read_policy(source: PolicySource) -> AppraisalPolicy:
    """Take a policy, or read one from a local file. Raises: PolicyError."""
    if isinstance(source, AppraisalPolicy):
        return source
    if source is None:
        raise PolicyError(
            "policy", "policy", "no release has published one yet; pass policy= a local file that you trust"
        )
    try:
        with Path(source).open("rb") as file:
            data = file.read(MAX_SETTINGS_BYTES + 1)
    except OSError as fault:
        raise PolicyError(str(source), "file", f"cannot be read ({fault.strerror}); name a policy file") from None
    return load_policy(data, str(source))


def fetch_evidence(url: str, nonce: bytes, authorization: Mapping[str, str], limits: Limits, link: Link) -> bytes:
    """Ask the gateway at `url` for a bundle of evidence that answers `nonce`, unjudged; blocks.

    Raises: RelayUnreachable, RelayRefused, TooLarge.
    """
    waits = dict.fromkeys(("read", "write", "pool"), limits.evidence_timeout_s)
    request = httpx2.Request(
        "GET",
        f"{url}{labels.PATH_EVIDENCE}?nonce={nonce.hex()}",
        headers={"accept": labels.MEDIA_EVIDENCE, **authorization},
        extensions={"timeout": {"connect": limits.connect_timeout_s, **waits}},
    )
    deadline_s = time.monotonic() + limits.evidence_timeout_s
    bundle = bytearray()
    try:
        with httpx2.HTTPTransport(**link.options) as transport:
            response = transport.handle_request(request)
            with closing(response):
                if response.status_code != 200:
                    raise RelayRefused(response.status_code)
                for data in response.iter_raw():
                    bundle += data
                    if len(bundle) > MAX_BUNDLE_BYTES:
                        raise TooLarge("the evidence is larger than its limit")
                    if time.monotonic() > deadline_s:
                        raise RelayUnreachable("the gateway took too long to send the evidence")
    except httpx2.TransportError as fault:
        raise RelayUnreachable(f"the gateway gave no evidence ({type(fault).__name__})") from None
    return bytes(bundle)


@dataclass(frozen=True)
class _Flight:
    """One verification under way, and its outcome for all who wait for it."""

    began_s: float
    outcome: Future[AttestedKeyset] = field(default_factory=Future)


class Relay:
    """One gateway, one policy, one trust state; for any number of threads and event loops."""

    def __init__(
        self,
        gateway: str,
        policy: PolicySource,
        *,
        api_key: str | None = None,
        allow_simulated: bool = False,
        memory: PolicyMemory | None = None,
        limits: Limits | None = None,
        link: Link | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`gateway`: its URL, with or without `/v1`. `memory`: by default the user's own file.

        Raises: PolicyError, ConfigError, before anything is sent.
        """
        self.url = gateway_url(gateway)
        parts = urlsplit(self.url)
        self._origin = parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]
        self._prefix = parts.path
        self.limits, self.link = limits or Limits(), link or Link()
        self._authorization = f"Bearer {api_key}" if api_key else None
        self._memory = memory or PolicyMemory(default_path())
        self._clock = clock
        accepted = read_policy(policy)
        floor = self._memory.floor(accepted.id)
        _check_policy(accepted, floor, clock())
        self.session = ClientSession(
            accepted,
            floor=floor,
            allow_simulated=allow_simulated,
            random=os.urandom,
            max_answer_bytes=self.limits.max_answer_bytes,
        )
        self.last_receipt: Receipt | None = None
        self._begin_process()

    def _begin_process(self) -> None:
        # A fork copies locks in whatever state they are, and no thread but the forking one.
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._flight: _Flight | None = None
        self._renewal: threading.Thread | None = None
        self._next_renewal_s = 0.0

    # --- Verification

    def ready(self, authorization: str | None = None) -> AttestedKeyset:
        """Verify the enclave unless it is verified; start a renewal in the background when one is due."""
        if self._process != os.getpid():
            self._begin_process()
        now = self._clock()
        attested = self.session.attested(int(now))
        if attested is None:
            attested = self._verify_unless(lambda each: True, authorization)
        elif self.session.renewal_due(int(now)) and now >= self._next_renewal_s:
            self._renew(authorization)
        return attested

    def verify(self, authorization: str | None = None) -> AttestationResult:
        """Fetch and appraise fresh evidence. Callers that come meanwhile share the one outcome.

        Raises: RelayUnreachable, RelayRefused, AttestationError.
        """
        self._verify_unless(lambda each: False, authorization)
        assert self.session.verified is not None  # noqa: S101 - it has just passed
        return self.session.verified.result

    def _verify_unless(
        self, suits: Callable[[AttestedKeyset], bool], authorization: str | None, since_s: float = 0.0
    ) -> AttestedKeyset:
        """Return the keyset in force if it suits (another caller may just have verified it), else verify.

        The outcome of a verification under way is shared, unless it began before `since_s` (monotonic).
        """
        while True:
            with self._lock:
                attested = self.session.attested(int(self._clock()))
                if attested is not None and suits(attested):
                    return attested
                flight = self._flight
                if flight is None:
                    own = self._flight = _Flight(time.monotonic())
                    break
            attested = flight.outcome.result()
            if flight.began_s >= since_s:
                return attested
        try:
            attested = self._verify(authorization)
        except BaseException as fault:
            own.outcome.set_exception(fault)
            raise
        else:
            own.outcome.set_result(attested)
            return attested
        finally:
            with self._lock:
                self._flight = None

    def replace(self, stale: bytes, authorization: str | None) -> bool:
        """Verify again after a key was refused; say whether there is another keyset to seal to now."""
        now_s = time.monotonic()
        attested = self._verify_unless(lambda each: each.keyset.digest != stale, authorization, now_s)
        return attested.keyset.digest != stale

    def _renew(self, authorization: str | None) -> None:
        def renew() -> None:
            # What was verified stands until its own end; then the caller sees the fault.
            with suppress(ConfideError):
                self.verify(authorization)

        with self._lock:
            if self._renewal is None or not self._renewal.is_alive():
                self._next_renewal_s = self._clock() + RENEW_RETRY_S
                self._renewal = threading.Thread(target=renew, name="confide-renewal", daemon=True)
                self._renewal.start()

    def _verify(self, authorization: str | None) -> AttestedKeyset:
        nonce = self.session.challenge()
        bundle = fetch_evidence(self.url, nonce, self.authorize(authorization), self.limits, self.link)
        policy = self.session.policy
        # A policy that cannot be remembered could be rolled back: nothing is trusted under it.
        return self.session.verify(
            bundle, nonce, int(self._clock()), accepted=lambda: self._memory.remember(policy.id, policy.serial)
        )

    # --- Sealing

    def call(
        self,
        method: str,
        origin: tuple[str, str, int | None],
        target: str,
        fields: Iterable[tuple[str, str]],
        body: bytes,
    ) -> Call:
        """Take a request that an HTTP library would send to `origin`.

        Raises: LocalStateError for a request that would leave unsealed, TooLarge.
        """
        scheme, host, port = origin
        if (scheme, host, port or _PORTS.get(scheme)) != self._origin or not target.startswith(self._prefix + "/"):
            raise LocalStateError("this transport seals for its own gateway; a request to another place is refused")
        if len(body) > self.limits.max_request_bytes:
            raise TooLarge("the request is larger than the limit; see Limits.max_request_bytes")
        call = self.session.call(method, target.removeprefix(self._prefix), fields, body)
        if (
            len(call.path) + sum(len(name) + len(value) + 4 for name, value in call.fields)
            > self.limits.max_head_bytes
        ):
            raise TooLarge("the request's head is larger than the limit; see Limits.max_head_bytes")
        return call

    def seal(self, call: Call) -> Exchange:
        return self.session.seal(call, int(self._clock()))

    def authorize(self, authorization: str | None) -> dict[str, str]:
        value = authorization or self._authorization
        return {"authorization": value} if value else {}


def _check_policy(policy: AppraisalPolicy, floor: int, now_unix_s: float) -> None:
    if policy.serial < floor:
        raise PolicyError(
            policy.id, "serial", f"is {policy.serial}; serial {floor} was accepted before: get the newer file"
        )
    if policy.not_after_unix_s <= now_unix_s:
        raise PolicyError(policy.id, "not_after", "has passed; get a newer policy, or set this machine's clock")


def gateway_url(gateway: str) -> str:
    """Return the gateway's URL without `/v1` and slashes at its end. Raises: ConfigError."""
    try:
        parts = urlsplit(gateway)
        usable = parts.scheme in _PORTS and parts.hostname and parts.port != 0
    except ValueError:
        usable = None
    if not usable or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError("gateway", "URL", "must be http://host[:port][/path] or https://…, without user or query")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"
