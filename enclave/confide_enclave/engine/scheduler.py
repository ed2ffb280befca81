"""Who computes what in the next step. Pure Python over integers; knows no tensors and no text."""

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import Final

from confide_enclave.engine.fairness import DeficitRoundRobin
from confide_enclave.engine.pages import PAGE_TOKENS, Pages, pages_for
from confide_enclave.engine.prefix import PrefixCache
from confide_enclave.engine.sequence import Sequence

MAX_OVERTAKEN: Final = 8


@dataclass(frozen=True)
class Step:
    """How many tokens of whom. Whoever computes a single one stands first."""

    parts: tuple[tuple[Sequence, int], ...]

    @property
    def sequences(self) -> tuple[Sequence, ...]:
        return tuple(sequence for sequence, _ in self.parts)


@dataclass(frozen=True)
class Bounds:
    """At most so many sequences at once, prompt tokens in a step, and pages under one account's sequences."""

    sequences: int
    prompt_tokens: int
    account_pages: int


class Scheduler:
    """Continuous batching: sequences join and leave between steps.

    Each step decodes every sequence that can, and splits a budget of prompt tokens fairly over accounts. A sequence
    enters when the pages for all it has so far, and one token more, can be had, and no other of its tenant is
    reading the same prompt, whose pages it will find then; the next to enter is of the account with the fewest
    inside. One that does not fit is overtaken MAX_OVERTAKEN times at most. When pages run out, the youngest of the
    account that holds the most gives its own back and starts again later, from its prompt and what it has
    generated; so does one of several, for an account that has none inside. Nobody is sent out before it has
    generated a page's tokens since it entered, or itself needs one page more: every entry brings a token at least,
    so everybody ends. `account_pages` is for one context at least, and so is the pool.
    """

    def __init__(self, pages: Pages, prefixes: PrefixCache, bounds: Bounds) -> None:
        self._pages, self._prefixes, self._bounds = pages, prefixes, bounds
        self._shares = DeficitRoundRobin()
        self._waiting: OrderedDict[str, deque[Sequence]] = OrderedDict()  # accounts in the order of their turns
        self._running: list[Sequence] = []

    @property
    def sequences(self) -> list[Sequence]:
        return [*self._running, *(sequence for queue in self._waiting.values() for sequence in queue)]

    def add(self, sequence: Sequence) -> None:
        self._waiting.setdefault(sequence.account, deque()).append(sequence)

    def next_step(self) -> Step | None:
        """Let in whoever is due and fits, and return the work of one step; None when there is none."""
        self._let_in()
        decoding = [sequence for sequence in self._running if sequence.remaining == 1]
        for sequence in decoding:
            if sequence.pages:  # it may have had to give them to one before it
                self._give_page(sequence)
        parts = [(sequence, 1 + len(sequence.guesses)) for sequence in decoding if sequence.pages]
        parts += self._read_prompts()
        return Step(tuple(sorted(parts, key=lambda part: part[1] > 1))) if parts else None

    def store(self, sequence: Sequence) -> None:
        """Let the cache hold what was computed of a sequence, if it is one of ours still."""
        if sequence.chain is not None and sequence.computed // PAGE_TOKENS > len(sequence.chain.keys):
            self._prefixes.store(sequence.chain, sequence.ids, sequence.pages, sequence.computed)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence of ours, and take its pages back."""
        if sequence in self._running:
            self._send_out(sequence)
            return
        self._waiting[sequence.account].remove(sequence)
        self._tidy(sequence.account)

    def _let_in(self) -> None:
        while self._waiting and self._let_one_in():
            pass

    def _let_one_in(self) -> bool:
        inside = Counter(sequence.account for sequence in self._running)
        behind: list[Sequence] = []
        for account in sorted(self._waiting, key=inside.__getitem__):
            sequence = self._waiting[account][0]
            if self._is_read_for(sequence):
                continue
            if self._enter(sequence, owed=not inside[account]):
                for other in behind:
                    other.overtaken += 1
                self._waiting.move_to_end(account)
                self._waiting[account].popleft()
                self._tidy(account)
                return True
            if sequence.lacks:
                if sequence.overtaken >= MAX_OVERTAKEN:
                    return False
                behind.append(sequence)
        return False

    def _is_read_for(self, sequence: Sequence) -> bool:
        """Say if another of its tenant is computing pages of the same prompt that the cache will have."""
        full = (len(sequence.prompt) - 1) // PAGE_TOKENS * PAGE_TOKENS
        return self._prefixes.keeps and any(
            other.computed < full and other.salt == sequence.salt and other.prompt == sequence.prompt
            for other in self._running
        )

    def _enter(self, sequence: Sequence, owed: bool) -> bool:
        """Give the sequence its first pages, if need be and `owed` at the cost of accounts that have several."""
        while len(self._running) >= self._bounds.sequences or not self._load(sequence):
            inside = Counter(other.account for other in self._running)
            several = [other for other in self._running if inside[other.account] > 1 and _has_gained(other)]
            if not owed or not several:
                return False
            self._preempt(self._youngest_of_heaviest(several))
        sequence.entered = len(sequence.generated)
        sequence.overtaken = sequence.lacks = 0
        self._running.append(sequence)
        return True

    def _load(self, sequence: Sequence) -> bool:
        """Hold what is cached of the sequence, and free pages for the rest; if too few are, nothing, and say so."""
        if self._pages.available < sequence.lacks:
            return False
        ids = sequence.ids
        held = self._held(sequence.account)
        wanted = pages_for(len(ids) + 1)
        if held and held + wanted > self._bounds.account_pages:
            return False
        chain = self._prefixes.open(sequence.salt, sequence.lasting)
        found = self._prefixes.match(chain, ids)
        rest = wanted - len(found)
        if rest > self._pages.available:
            self._pages.release(found)
            self._prefixes.close(chain)
            sequence.lacks = rest
            return False
        self._prefixes.evict(rest - self._pages.free)
        sequence.pages = found + self._pages.take(rest, after=found[-1] if found else -1)
        self._prefixes.restore(chain, sequence.pages)
        sequence.chain, sequence.computed = chain, len(chain.keys) * PAGE_TOKENS
        return True

    def _give_page(self, sequence: Sequence) -> None:
        """See to it that the sequence's next token has a place, or that the sequence is out."""
        while sequence.computed == len(sequence.pages) * PAGE_TOKENS:
            within = self._held(sequence.account) < self._bounds.account_pages
            if within and self._pages.available:
                self._prefixes.evict(1 - self._pages.free)
                sequence.pages += self._pages.take(1, after=sequence.pages[-1])
                return
            rivals = [s for s in self._running if within or s.account == sequence.account]
            victim = self._youngest_of_heaviest([s for s in rivals if s is sequence or _has_gained(s)])
            self._preempt(victim)
            if victim is sequence:
                return

    def _read_prompts(self) -> list[tuple[Sequence, int]]:
        reading = [sequence for sequence in self._running if sequence.remaining > 1]
        wanted: Counter[str] = Counter()
        for sequence in reading:
            wanted[sequence.account] += sequence.remaining
        shares = self._shares.share(wanted, self._bounds.prompt_tokens)
        parts: list[tuple[Sequence, int]] = []
        for sequence in reading:
            if count := min(sequence.remaining, shares.get(sequence.account, 0)):
                parts.append((sequence, count))
                shares[sequence.account] -= count
        return parts

    def _preempt(self, sequence: Sequence) -> None:
        self._send_out(sequence)
        self._waiting.setdefault(sequence.account, deque()).appendleft(sequence)

    def _send_out(self, sequence: Sequence) -> None:
        self._pages.release(sequence.pages)
        sequence.pages, sequence.guesses, sequence.computed = [], [], 0
        self._running.remove(sequence)  # after its pages were wiped: a fault there must find it among the others
        if sequence.chain is not None:
            self._prefixes.close(sequence.chain)
            sequence.chain = None

    def _tidy(self, account: str) -> None:
        if not self._waiting[account]:
            del self._waiting[account]

    def _held(self, account: str) -> int:
        return sum(len(sequence.pages) for sequence in self._running if sequence.account == account)

    def _youngest_of_heaviest(self, sequences: list[Sequence]) -> Sequence:
        heaviest = max((sequence.account for sequence in sequences), key=self._held)
        return [sequence for sequence in sequences if sequence.account == heaviest][-1]


def _has_gained(sequence: Sequence) -> bool:
    return len(sequence.generated) - sequence.entered >= PAGE_TOKENS
