"""Keys made at boot, held in memory alone: one keyset in use, the one before it in its grace (SPEC 3)."""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from confide_protocol import labels
from confide_protocol.errors import LocalStateError, Replayed, UnknownKey
from confide_protocol.hpke import HKDF_SHA256, REQUIRED, KemId, PrivateKey, Suite
from confide_protocol.keyconfig import KeyConfig, encode_key_configs
from confide_protocol.keyset import Keyset
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

KEY_ID = 1
SEED_BYTES = 32
ROTATE_AT_FILL = 0.9  # the rest of the replay store serves the key's grace

Random = Callable[[int], bytes]
Clock = Callable[[], float]


def fresh(random: Random, length: int = SEED_BYTES) -> bytes:
    """Draw random bytes; a generator that gives zeros has failed, and nothing may be built on it."""
    drawn = random(length)
    if len(drawn) != length or not any(drawn):
        raise LocalStateError("the random number generator failed")
    return drawn


@dataclass(frozen=True, eq=False)
class Generation:
    """One keyset with its private halves, its replay store and the evidence that was issued for it.

    The replay store holds SHA-256(enc) of every opened request and forgets none: when full, it opens nothing more.
    `ehbp` is there where EHBP is answered, and serves nothing else.
    """

    keyset: Keyset
    digest: bytes
    suites: Mapping[int, tuple[Suite, PrivateKey]] = field(repr=False)
    receipt_ed25519: Ed25519PrivateKey = field(repr=False)
    receipt_ml_dsa_65: MLDSA65PrivateKey = field(repr=False)
    usage_ed25519: Ed25519PrivateKey = field(repr=False)
    replay_capacity: int
    ehbp: PrivateKey | None = field(default=None, repr=False)
    _seen: set[bytes] = field(default_factory=set, repr=False)
    _statements: set[bytes] = field(default_factory=set, repr=False)

    def admit(self, enc_digest: bytes) -> None:
        """Check and insert in one step (no await between). Raises: Replayed; UnknownKey of a full store."""
        if enc_digest in self._seen:
            raise Replayed
        if len(self._seen) >= self.replay_capacity:
            raise UnknownKey
        self._seen.add(enc_digest)

    @property
    def nearly_full(self) -> bool:
        return len(self._seen) >= self.replay_capacity * ROTATE_AT_FILL

    def issue(self, statement_digest: bytes) -> None:
        self._statements.add(statement_digest)

    def issued(self, statement_digest: bytes) -> bool:
        return statement_digest in self._statements


class KeysetHolder:
    """The current generation and, within its grace, the previous one. Not for several threads.

    A keyset is replaced one grace before its not-after, or when its replay store is nearly full, if `may_rotate`;
    it is dropped one grace later, and one grace after its not-after in any case. Python cannot overwrite the memory
    of a dropped key: the guest's memory encryption covers it.
    """

    def __init__(
        self,
        manifest_digest: bytes,
        *,
        simulated: bool,
        lifetime_s: int,
        grace_s: int,
        replay_capacity: int,
        clock: Clock,
        random: Random,
        may_rotate: Callable[[], bool] = lambda: True,
        forget: Callable[[], object] = lambda: None,
        ehbp: bool = False,
    ) -> None:
        """`forget` is called when a keyset's end takes the salts of all tenants with it."""
        self._manifest_digest = manifest_digest
        self._simulated, self._ehbp = simulated, ehbp
        self._lifetime_s, self._grace_s = lifetime_s, grace_s
        self._replay_capacity = replay_capacity
        self._clock, self._random, self._may_rotate, self._forget = clock, random, may_rotate, forget
        self._tenant_key = fresh(random)
        self._current: Generation | None = self._generate()
        self._previous: Generation | None = None
        self._previous_until_s = 0.0

    @property
    def current(self) -> Generation:
        """Return the keyset in use. Raises: LocalStateError if it ended and none may be made."""
        self.tick()
        if self._current is None:
            raise LocalStateError("the keys have ended, and no new ones may be made")
        return self._current

    @property
    def live(self) -> tuple[Generation, ...]:
        """Return all that is opened now, the keyset in use first."""
        self.tick()
        return tuple(each for each in (self._current, self._previous) if each is not None)

    def find(self, digest: bytes) -> Generation | None:
        """Return the live generation of that digest, if any."""
        return next((each for each in self.live if each.digest == digest), None)

    def tick(self) -> None:
        """Rotate and drop what is due."""
        now, before = self._clock(), (current := self._current)
        if self._previous is not None and now >= self._previous_until_s:
            self._previous = None
        if current is not None and now >= current.keyset.not_after_unix_s + self._grace_s:
            self._current = current = None
        due = current is None or now >= current.keyset.not_after_unix_s - self._grace_s or current.nearly_full
        if due and self._may_rotate():
            until = now if current is None else min(now + self._grace_s, current.keyset.not_after_unix_s)
            self._previous, self._previous_until_s = current if now < until else None, until
            self._current = self._generate()
        if self._current is not before:
            self._tenant_key = fresh(self._random)
            self._forget()

    def tenant_salt(self, cache_key: bytes | None) -> bytes:
        """Derive the salt that separates one client's cache from all others, until the keyset in use changes.

        Without a key it is nobody's.
        """
        if cache_key is None:
            return fresh(self._random)
        return hmac.digest(self._tenant_key, cache_key, hashlib.sha256)

    def _generate(self) -> Generation:
        suite = REQUIRED
        seal = PrivateKey.generate(suite.kem, fresh(self._random))
        ed25519 = Ed25519PrivateKey.from_private_bytes(fresh(self._random))
        ml_dsa_65 = MLDSA65PrivateKey.from_seed_bytes(fresh(self._random))
        usage = Ed25519PrivateKey.from_private_bytes(fresh(self._random))
        ehbp = PrivateKey.generate(KemId.X25519, fresh(self._random)) if self._ehbp else None
        # A client's clock may lag by as much as its requests' date may.
        not_before = int(self._clock()) - min(labels.DATE_TOLERANCE_S, (self._lifetime_s - self._grace_s) // 2)
        config = KeyConfig(KEY_ID, suite.kem, seal.public, ((HKDF_SHA256, suite.aead),))
        keyset = Keyset(
            ohttp_keys=encode_key_configs([config]),
            receipt_ed25519=ed25519.public_key().public_bytes_raw(),
            receipt_ml_dsa_65=ml_dsa_65.public_key().public_bytes_raw(),
            usage_ed25519=usage.public_key().public_bytes_raw(),
            manifest_digest=self._manifest_digest,
            not_before_unix_s=not_before,
            not_after_unix_s=not_before + self._lifetime_s,
            simulated=self._simulated,
            ehbp_key=None if ehbp is None else ehbp.public,
        )
        return Generation(
            keyset=keyset,
            digest=keyset.digest,
            suites={KEY_ID: (suite, seal)},
            receipt_ed25519=ed25519,
            receipt_ml_dsa_65=ml_dsa_65,
            usage_ed25519=usage,
            replay_capacity=self._replay_capacity,
            ehbp=ehbp,
        )
