"""What may be sent again, and when. One `Delivery` is one call on its way to the first byte of its answer.

    delivery = Delivery(relay, call, authorization)
    while True:
        exchange = delivery.prepare()          # verifies where needed; blocks; None: not yet
        ... send exchange.body; on a fault: delivery.unsent(fault) or delivery.broke(fault)
        ... on an answer: delivery.answered(status, content_type); True: it begins; False: once more
        ... between two tries: sleep delivery.wait_s

The rule, so that no call is executed twice:

1. Nothing left this machine (no connection): the call may be tried again, as often as `Limits.recover_s` allows.
2. The gateway says 503 (it passed nothing on), or the connection broke before an answer began: the *same sealed
   bytes* may be sent again. A node opens them at most once, whatever arrives twice: they stand in its single-use
   set (SPEC 6.4). So may they, once, after a 400 when the gateway still reaches the key that they are sealed to.
3. The call is sealed *anew* at most once, and only when the bytes sent before can no longer be opened and this
   machine's own way to the gateway never broke: the gateway says 400 to them (no node holds the key), or 502 (its
   way to the node broke) and, when first asked, that the node is gone, which it says only if it is sure (SPEC 6.6).
   What a node that died had begun died with it, unanswered.
4. Where an enclave may have opened the bytes, and its answer is lost: OutcomeUnknown. So says 409: these very bytes
   were opened before. Nothing is sent again.
5. Once an answer has begun, nothing is sent again, whatever happens.

What a gateway says in clear is not authenticated. One that lies can make a call be executed twice (by rule 3), and
not more often; it cannot read either. So that no caller's own retries add to that, what ends a call tells the cases
apart: OutcomeUnknown once an enclave may have run it, whatever the gateway said later; RefusedAfterSending where
sealed bytes left and an honest gateway passed none on; any other RelayRefused came before anything was sealed.
"""

import random
import time
from collections.abc import Callable

from confide_protocol import labels
from confide_protocol.errors import ConfideError, RelayRefused, RelayUnreachable

from confide.errors import NotConfide, OutcomeUnknown, RefusedAfterSending, refused
from confide.relay import Relay
from confide.session import Call, Exchange

FIRST_WAIT_S = 0.05
MAX_WAIT_S = 1.0
# Sealed bytes older than this may be refused for their date.
STALE_BYTES_S = labels.DATE_TOLERANCE_S - 15
_AWAY = frozenset({502, 503, 504})
# What an honest gateway says of bytes that it passed to no node, or that no node opened.
_NOT_OPENED = frozenset({400, 401, 403, 404, 405, 408, 413, 415, 429, 503})


class Delivery:
    """One call's tries. `wait_s` is how long to sleep before the next `prepare`."""

    def __init__(self, relay: Relay, call: Call, authorization: str | None) -> None:
        self.relay, self.authorization = relay, authorization
        self.exchange: Exchange | None = None
        self.wait_s = 0.0
        self._call = call
        self._sealed_at_s = 0.0
        self._sent = self._doubtful = self._resealed = self._repeated = False
        self._doubted = False  # of any bytes sent; `_doubtful` is of the last ones
        self._maybe_done = False  # an enclave that answers no more may have finished before it went
        self._next: Callable[[], None] | None = None
        self._until_s: float | None = None
        self._tries = 0

    def prepared(self) -> Exchange | None:
        """Return what to send now, if that needs no network."""
        return self.prepare() if self._next is None and (self.exchange or self.relay.warm) else None

    def prepare(self) -> Exchange | None:
        """Return what to send now; verifies, or asks the gateway about a node, where that is needed.

        None: the gateway is away; sleep `wait_s` and come again. Raises: ConfideError when the call has to end.
        """
        try:
            if self._next is not None:
                self._next()
                self._next = None
            if self.exchange is None:
                self.relay.ready(self.authorization)
                self.exchange = self.relay.seal(self._call, self.authorization)
                self._sealed_at_s = self.relay.now_s()
        except ConfideError as fault:
            if not self._is_away(fault):
                final = self._final(fault)
                raise final from (None if final is fault else fault)
            self._again(fault)
            return None
        return self.exchange

    @property
    def left(self) -> bool:
        """Whether sealed bytes may have left this machine."""
        return self._sent

    def unsent(self, fault: Exception) -> None:
        """Take note that no connection was made; raises `fault`, or what is `_final`, once time is over."""
        self._again(fault)
        if not self._sent:
            self.exchange = None

    def broke(self, fault: RelayUnreachable) -> None:
        """Take note that the connection broke after bytes were sent, before an answer. Raises: OutcomeUnknown."""
        self.timed_out()
        if self._old:
            raise OutcomeUnknown
        self._again(fault)

    def timed_out(self) -> None:
        """Take note that the caller's library waits no more; what was sent may be run all the same."""
        self._sent = self._doubtful = self._doubted = self._maybe_done = True

    def answered(self, status: int, content_type: str) -> bool:
        """Take the outer head; False: go on with `prepare`. Raises: RelayRefused, OutcomeUnknown."""
        assert self.exchange is not None  # noqa: S101 - it was just sent
        self._sent = True
        try:
            self.exchange.answered(status, content_type)
        except RelayRefused:
            self._refused(refused(status))
            return False
        return True

    def _refused(self, refusal: RelayRefused) -> None:
        if refusal.status == 400:
            self.wait_s = 0.0
            opened, refused_at_s = self._doubtful, time.monotonic()
            self._next = lambda: self._settle(were_refused=True) if opened else self._renew(refusal, refused_at_s)
        elif refusal.status == 502:
            self._doubtful = self._doubted = True
            self._again(refusal)
            self._next = lambda: self._settle(were_refused=False)
        elif refusal.status == 503 and not self._old:
            self._again(refusal)
        elif refusal.status in _NOT_OPENED:
            raise self._final(refusal)
        else:
            raise OutcomeUnknown(f"{refusal}; an enclave may have run it: ask again if that does no harm")

    def _renew(self, refusal: RelayRefused, since_s: float) -> None:
        """Seal anew to the keyset that fresh evidence names; if that is the same one, repeat the bytes once.

        A gateway that has just started says 400 for a node that it only finds a moment later.
        """
        assert self.exchange is not None  # noqa: S101 - it was refused
        if self.relay.replace(self.exchange.keyset_digest, self.authorization, since_s):
            self._seal_anew(refusal)
        elif self._repeated:
            raise refusal
        self._repeated = True

    def _settle(self, *, were_refused: bool) -> None:
        """Seal anew if the node that may have opened the bytes is gone; else send them again, or end the call.

        They are sent again once where they `were_refused` with 400: it may have been the gateway's, as in `_renew`.
        Where this machine's way broke, or the node outlived a break, it may have finished before it was gone.
        """
        assert self.exchange is not None  # noqa: S101 - it was sent
        if self.relay.holds(self.exchange.keyset_digest, self.authorization):
            self._maybe_done = True
            if were_refused and self._repeated:
                raise OutcomeUnknown
            self._repeated = self._repeated or were_refused
            return
        # What was verified before may be another key of the very node that is gone.
        if self._maybe_done or not self.relay.replace(
            self.exchange.keyset_digest, self.authorization, time.monotonic()
        ):
            raise OutcomeUnknown
        self._seal_anew(OutcomeUnknown())

    def _seal_anew(self, fault: ConfideError) -> None:
        if self._resealed:
            raise fault
        self._resealed, self._doubtful = True, False
        self.exchange = None

    @property
    def _old(self) -> bool:
        return self.relay.now_s() - self._sealed_at_s > STALE_BYTES_S

    def _is_away(self, fault: ConfideError) -> bool:
        """Tell whether to ask again. First contact is not repeated: the URL may be wrong."""
        if isinstance(fault, (OutcomeUnknown, NotConfide)) or self.relay.session.verified is None:
            return False
        return isinstance(fault, RelayUnreachable) or (isinstance(fault, RelayRefused) and fault.status in _AWAY)

    def _again(self, fault: Exception) -> None:
        """Set the pause before another try; raises what is `_final` once the time is over."""
        now_s = time.monotonic()
        if self._until_s is None:
            self._until_s = now_s + self.relay.limits.recover_s
        self.wait_s = min(MAX_WAIT_S, FIRST_WAIT_S * 2**self._tries) * random.uniform(0.5, 1.0)  # noqa: S311
        self._tries += 1
        if now_s + self.wait_s > self._until_s:
            raise self._final(fault)

    def _final(self, fault: Exception) -> Exception:
        """Return what ends the call: no later fault may hide that an enclave may have run it."""
        if self._doubted and not isinstance(fault, OutcomeUnknown):
            return OutcomeUnknown()
        if self._sent and isinstance(fault, RelayRefused) and not isinstance(fault, NotConfide):
            return RefusedAfterSending(fault.status, str(fault))
        return fault
