"""The way to an enclave: fetch its evidence through the gateway, verify once for all callers, renew in time.

Holds what the transports of every HTTP library share. Blocking: an event loop calls `ready` in a worker thread.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from confide_attestation.errors import AppraisalRejected
from confide_attestation.policy import AppraisalPolicy, load_policy
from confide_attestation.result import AttestationResult, AttestedKeyset
from confide_protocol import labels
from confide_protocol.errors import ConfideError, LocalStateError, PolicyError, RelayRefused, TooLarge
from confide_protocol.settings import MAX_SETTINGS_BYTES

from confide.errors import NotConfide
from confide.fetch import PORTS, Limits, Link, fetch_evidence, gateway_url
from confide.policy_memory import PolicyMemory, default_path
from confide.process import begin_in_children
from confide.runtime import demand_cryptography
from confide.session import Call, ClientSession, Exchange, Receipt
from confide.views import Attestation

RENEW_RETRY_S = 60
# What a gateway says of one API key, and not of the way: no other key's holder has to take it for an answer.
_OF_ONE_KEY = frozenset({401, 403, 429})
MAX_NARROWED = 32

PolicySource = AppraisalPolicy | str | os.PathLike[str] | None


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
    try:
        return load_policy(data, str(source))
    except PolicyError as fault:
        other = "if the file was written for another version of Confide, use that version"
        raise PolicyError(fault.file, fault.field, f"{fault.remedy}; {other}") from None


@dataclass(frozen=True)
class _Flight:
    """One verification under way, and its outcome for all who wait for it."""

    began_s: float
    authorization: str | None
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
        elder: "Relay | None" = None,
    ) -> None:
        """`gateway`: its URL, with or without `/v1`. `memory`: by default the user's own file.
        `elder`: another relay to the same gateway, whose evidence is judged before any is fetched.

        Raises: PolicyError, ConfigError, before anything is sent.
        """
        demand_cryptography()
        self.url = gateway_url(gateway)
        parts = urlsplit(self.url)
        self._origin = parts.scheme, parts.hostname, parts.port or PORTS[parts.scheme]
        self._prefix = parts.path
        self.limits, self.link = limits or Limits(), link or Link()
        self._authorization = f"Bearer {api_key}" if api_key else None
        self._memory = memory or PolicyMemory(default_path())
        self._clock = clock
        self._elder = elder
        # When the evidence in force was asked for, on the monotonic clock.
        self._asked_s = 0.0
        accepted = read_policy(policy)
        floor = self._memory.floor(accepted.id)
        _check_policy(accepted, floor, clock())
        self._allow_simulated = allow_simulated
        self.session = ClientSession(
            accepted,
            floor=floor,
            allow_simulated=allow_simulated,
            random=os.urandom,
            max_answer_bytes=self.limits.max_answer_bytes,
        )
        self.last_receipt: Receipt | None = None
        self._narrowed: dict[bytes, Relay] = {}
        self.begin_process()
        begin_in_children(self)

    def begin_process(self) -> None:
        # A fork copies locks in whatever state they are, and no thread but the forking one.
        self._lock = threading.Lock()
        self._flight: _Flight | None = None
        self._renewal: threading.Thread | None = None
        self._next_renewal_s = 0.0

    @property
    def attestation(self) -> Attestation | None:
        """The latest appraisal that passed, for showing; None before the first."""
        verified = self.session.verified
        return Attestation(verified.result) if verified else None

    def narrowed(self, policy: PolicySource = None, shape: str | None = None) -> "Relay":
        """Return the relay for calls under another policy or shape; the same one for the same.

        It has trust, cache secret and last receipt of its own; evidence that this relay holds is judged anew under
        its policy, without the network where that suffices. Raises: PolicyError.
        """
        wanted = self.session.policy if policy is None else read_policy(policy)
        if shape is not None:
            if shape not in (labels.SHAPE_NONE, labels.SHAPE_BUCKETED):
                raise PolicyError(wanted.id, "shape", f'is none that exists; use "{labels.SHAPE_BUCKETED}"')
            session = wanted.session.model_copy(update={"shape": shape})
            wanted = wanted.model_copy(update={"session": session})
        digest = wanted.digest
        if digest == self.session.policy.digest:
            return self
        relay = self._narrowed.get(digest)
        if relay is None:
            relay = Relay(
                self.url,
                wanted,
                allow_simulated=self._allow_simulated,
                memory=self._memory,
                limits=self.limits,
                link=self.link,
                clock=self._clock,
                elder=self,
            )
            relay._authorization = self._authorization
            with self._lock:
                while len(self._narrowed) >= MAX_NARROWED:
                    self._narrowed.pop(next(iter(self._narrowed)))
                relay = self._narrowed.setdefault(digest, relay)
        return relay

    # --- Verification

    @property
    def warm(self) -> bool:
        """Whether `ready` would return at once, and start nothing."""
        now = self._clock()
        return self.session.attested(int(now)) is not None and (
            now < self._next_renewal_s or not self.session.renewal_due(int(now))
        )

    def ready(self, authorization: str | None = None) -> AttestedKeyset:
        """Verify the enclave unless it is verified; start a renewal in the background when one is due."""
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

        The outcome of a verification under way is shared, unless it began before `since_s` (monotonic), or failed
        for the API key of the caller that began it.
        """
        while True:
            with self._lock:
                attested = self.session.attested(int(self._clock()))
                if attested is not None and suits(attested):
                    return attested
                flight = self._flight
                if flight is None:
                    own = self._flight = _Flight(time.monotonic(), authorization)
                    break
            try:
                attested = flight.outcome.result()
            except RelayRefused as refusal:
                if flight.authorization == authorization or refusal.status not in _OF_ONE_KEY:
                    raise
                continue
            if flight.began_s >= since_s:
                return attested
        try:
            attested = self._verify(authorization, since_s)
        except BaseException as fault:
            own.outcome.set_exception(fault)
            raise
        else:
            own.outcome.set_result(attested)
            return attested
        finally:
            with self._lock:
                self._flight = None

    def replace(self, stale: bytes, authorization: str | None, since_s: float) -> bool:
        """Verify again after a key was refused; say whether there is another keyset to seal to now.

        Another one that is in force will do, unless its evidence was asked for before `since_s` (monotonic).
        """

        def suits(each: AttestedKeyset) -> bool:
            return each.keyset.digest != stale and self._asked_s >= since_s

        return self._verify_unless(suits, authorization, since_s).keyset.digest != stale

    def _renew(self, authorization: str | None) -> None:
        def renew() -> None:
            # What was verified stands until its own end; then the caller sees the fault.
            with suppress(ConfideError):
                try:
                    self.verify(authorization)
                except RelayRefused as refusal:
                    if refusal.status in _OF_ONE_KEY:  # so the next caller's key may do it at once
                        self._next_renewal_s = 0.0
                    raise

        with self._lock:
            if self._renewal is None or not self._renewal.is_alive():
                self._next_renewal_s = self._clock() + RENEW_RETRY_S
                self._renewal = threading.Thread(target=renew, name="confide-renewal", daemon=True)
                self._renewal.start()

    def _verify(self, authorization: str | None, since_s: float) -> AttestedKeyset:
        if inherited := self._inherit(since_s):
            return inherited
        nonce, asked_s = self.session.challenge(), time.monotonic()
        bundle = fetch_evidence(self.url, nonce, self.authorize(authorization), self.limits, self.link)
        attested = self._judge(bundle, nonce)
        self._asked_s = asked_s
        return attested

    def _inherit(self, since_s: float) -> AttestedKeyset | None:
        """Judge the elder's evidence, if it is in force, newer than one's own, and was asked for since then."""
        asked_s, held = (self._elder._asked_s, self._elder.session.verified) if self._elder else (0.0, None)
        own = self.session.verified
        if held is None or asked_s < since_s or held.keyset.valid_until_unix_s <= self._clock():
            return None
        if own is not None and (
            held.keyset.keyset.digest == own.keyset.keyset.digest
            or held.result.judged_at_unix_s <= own.result.judged_at_unix_s
        ):
            return None
        with suppress(AppraisalRejected):  # another node may suit where this one does not
            attested = self._judge(held.bundle, held.nonce)
            self._asked_s = asked_s
            return attested
        return None

    def _judge(self, bundle: bytes, nonce: bytes) -> AttestedKeyset:
        policy = self.session.policy
        # A policy that cannot be remembered could be rolled back: nothing is trusted under it.
        return self.session.verify(
            bundle, nonce, int(self._clock()), accepted=lambda: self._memory.remember(policy.id, policy.serial)
        )

    def holds(self, keyset_digest: bytes, authorization: str | None) -> bool:
        """Ask, unauthenticated, whether the gateway still reaches a node that holds the keyset.

        Raises: RelayUnreachable, RelayRefused; with status 503 where the gateway cannot tell.
        """
        nonce = self.session.challenge()
        try:
            fetch_evidence(
                self.url, nonce, self.authorize(authorization), self.limits, self.link, keyset=keyset_digest
            )
        except RelayRefused as refusal:
            if refusal.status == 400 and not isinstance(refusal, NotConfide):
                return False
            raise
        return True

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
        if (scheme, host, port or PORTS.get(scheme)) != self._origin or not target.startswith(self._prefix + "/"):
            raise LocalStateError("this transport seals for its own gateway; a request to another place is refused")
        if len(body) > self.limits.max_request_bytes:
            limit = self.limits.max_request_bytes
            raise TooLarge(f"the request is larger than the limit of {limit} bytes; see Limits.max_request_bytes")
        call = self.session.call(method, target.removeprefix(self._prefix), fields, body)
        if (
            len(call.path) + sum(len(name) + len(value) + 4 for name, value in call.fields)
            > self.limits.max_head_bytes
        ):
            raise TooLarge("the request's head is larger than the limit; see Limits.max_head_bytes")
        return call

    def now_s(self) -> float:
        return self._clock()

    def seal(self, call: Call, authorization: str | None = None) -> Exchange:
        """Seal a call; callers that bring keys of their own share no cache in the enclave."""
        return self.session.seal(call, int(self._clock()), authorization or "")

    def authorize(self, authorization: str | None) -> dict[str, str]:
        # Its own first: a library may have found a key that is none of the gateway's.
        value = self._authorization or authorization
        return {"authorization": value} if value else {}


def _check_policy(policy: AppraisalPolicy, floor: int, now_unix_s: float) -> None:
    if policy.serial < floor:
        raise PolicyError(
            policy.id, "serial", f"is {policy.serial}; serial {floor} was accepted before: get the newer file"
        )
    if policy.not_after_unix_s <= now_unix_s:
        raise PolicyError(policy.id, "not_after", "has passed; get a newer policy, or set this machine's clock")
