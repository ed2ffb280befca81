"""The scheduler over integers alone: order, shares, and who goes when pages run out."""

from confide_enclave.engine import Sampling
from confide_enclave.engine.pages import PAGE_TOKENS, Pages
from confide_enclave.engine.prefix import PrefixCache
from confide_enclave.engine.scheduler import Bounds, Scheduler
from confide_enclave.engine.sequence import Sequence
from confide_enclave.engine.tokens import TextStream


def make(prompt_tokens: int, token_limit: int = 9, account: str = "", salt: bytes = b"") -> Sequence:
    return Sequence(
        [7] * prompt_tokens, Sampling(0, 1, 9, 0), token_limit, TextStream(()), print, account=account, salt=salt,
        lasting=bool(salt),
    )  # fmt: skip


class Room:
    """A scheduler that is told of sequences, and what was wiped."""

    def __init__(
        self, pages: int = 99, places: int = 3, budget: int = 4, account_pages: int = 99, kept: int = 0
    ) -> None:
        self.wiped: list[int] = []
        self.pages = Pages(pages, self.wiped.extend)
        self.prefixes = PrefixCache(self.pages, kept, kept)
        self.scheduler = Scheduler(self.pages, self.prefixes, Bounds(places, budget, account_pages))

    def add(self, *sequences: Sequence) -> None:
        for sequence in sequences:
            self.scheduler.add(sequence)

    def step(self) -> list[tuple[Sequence, int]]:
        """Run one step; whoever is read to the end generates, and leaves at its limit."""
        step = self.scheduler.next_step()
        assert step is not None
        for sequence, count in step.parts:
            sequence.computed += count
            self.scheduler.store(sequence)
        for sequence in step.sequences:
            if not sequence.remaining:
                sequence.generated.append(0)
                if len(sequence.generated) == sequence.token_limit:
                    self.scheduler.remove(sequence)
        return list(step.parts)

    def steps_until(self, sequence: Sequence, tokens: int, limit: int = 1000) -> int:
        """Return how many steps it takes until the sequence has generated so many tokens."""
        for steps in range(limit):
            if len(sequence.generated) >= tokens:
                return steps
            self.step()
        raise AssertionError("starved")


def test_prompts_are_read_within_a_budget_beside_decoding() -> None:
    """Each step decodes whoever can and reads one account's prompts, eldest first, as far as the budget goes."""
    room = Room()
    first, second, third = make(2), make(9), make(4)
    room.add(first, second, third)
    assert [room.step() for _ in range(5)] == [
        [(first, 2), (second, 2)],
        [(first, 1), (second, 4)],
        [(first, 1), (third, 1), (second, 3)],
        [(first, 1), (second, 1), (third, 3)],
        [(first, 1), (second, 1), (third, 1)],
    ]


def test_places_go_to_whoever_waits_longest() -> None:
    """A sequence joins when another leaves, whose pages were wiped."""
    room = Room(places=2)
    first, second, third = make(1), make(1), make(1)
    room.add(first, second, third)
    assert room.step() == [(first, 1), (second, 1)]
    held = list(first.pages)
    room.scheduler.remove(first)
    assert (room.wiped, first.pages) == (held, [])
    assert room.step() == [(second, 1), (third, 1)]


def test_places_are_shared_by_accounts() -> None:
    """The next to enter is of the account with the fewest inside, whoever came first."""
    room = Room(places=2)
    flood = [make(1, 9, "flood") for _ in range(3)]
    other = make(1, 9, "other")
    room.add(*flood, other)
    assert {part[0] for part in room.step()} == {flood[0], other}


def test_accounts_take_turns() -> None:
    """A free place goes to an account with the fewest inside; of these, to the one whose turn was longest ago."""
    room = Room(places=1)
    many, one = [make(1, 1, "many") for _ in range(3)], make(1, 1, "one")
    room.add(*many, one)
    assert [room.step()[0][0] for _ in range(4)] == [many[0], one, *many[1:]]
    room = Room(places=2)
    many = [make(1, 9, "many") for _ in range(3)]
    room.add(*many)
    room.step()
    room.add(one := make(1, 9, "one"))
    room.scheduler.remove(many[0])
    assert [part[0] for part in room.step()] == [many[1], one]


def test_an_account_with_nothing_inside_is_owed_a_place() -> None:
    """One of several of another account makes room once it has gained a page's tokens, and is resumed later."""
    room = Room(places=2, budget=64)
    flood = [make(5, 90, "flood") for _ in range(2)]
    room.add(*flood)
    room.step()
    mine = make(5, 3, "mine")
    room.add(mine)
    assert room.steps_until(mine, 1) <= PAGE_TOKENS
    assert flood[1].pages == []
    generated = len(flood[1].generated)
    assert generated >= PAGE_TOKENS
    room.steps_until(flood[1], generated + 1, 10)
    # Each has one inside now: nobody is owed anything.
    assert [part[0] for part in room.step()] == flood


def test_the_youngest_of_the_heaviest_gives_its_pages() -> None:
    """Out of pages, it starts again later, from its prompt and what it has generated."""
    room = Room(pages=9, places=4, budget=200)
    heavy = [make(2 * PAGE_TOKENS - 1, 60, "heavy"), make(PAGE_TOKENS, 60, "heavy")]
    light = make(PAGE_TOKENS - 1, 60, "light")
    room.add(*heavy, light)
    while heavy[1].pages or not heavy[1].generated:
        room.step()
    assert light.pages
    assert heavy[0].pages
    assert heavy[1].computed == 0
    generated = len(heavy[1].generated)
    assert generated >= PAGE_TOKENS
    room.steps_until(heavy[1], 60)
    assert len(light.generated) == len(heavy[0].generated) == 60
    assert room.pages.free == 9


def test_a_long_context_is_not_sent_out_again_and_again() -> None:
    """Beside an endless stream of small requests, a large one that was sent out gains tokens by every entry."""
    room = Room(pages=12, places=4, budget=32)
    large = make(100, 60, "large")
    small = [make(PAGE_TOKENS, 60, "small") for _ in range(3)]
    room.add(large, *small)
    entries = steps = 0
    while len(large.generated) < 60:
        inside = bool(large.pages)
        room.step()
        entries += bool(large.pages) and not inside
        steps += 1
        for i, sequence in enumerate(small):
            if len(sequence.generated) == 60:
                small[i] = make(PAGE_TOKENS, 60, "small")
                room.add(small[i])
        assert steps < 1000
    assert entries <= 60 / PAGE_TOKENS + 1


def test_small_ones_do_not_overtake_for_ever() -> None:
    """One that wants nearly the whole pool gets in although others, each alone in its account, always come back."""
    room = Room(pages=10, places=4, budget=64)
    small = [make(PAGE_TOKENS, 5 + i, str(i)) for i in range(3)]
    room.add(*small)
    room.step()
    large = make(8 * PAGE_TOKENS, 2, "large")
    room.add(large)
    for _ in range(200):
        room.step()
        if large.generated:
            break
        for i, sequence in enumerate(small):
            if len(sequence.generated) == sequence.token_limit:
                small[i] = make(PAGE_TOKENS, 5 + i, str(i))
                room.add(small[i])
    assert large.generated


def test_an_account_keeps_to_its_pages() -> None:
    """At its quota an account's next request waits for its own, and blocks nobody else."""
    room = Room(places=4, budget=200, account_pages=5)
    first, second, third = (make(2 * PAGE_TOKENS, 40, "a") for _ in range(3))
    other = make(2 * PAGE_TOKENS, 40, "b")
    room.add(first, second, third, other)
    room.step()
    assert [bool(s.pages) for s in (first, second, third, other)] == [True, False, False, True]
    for _ in range(200):
        if not room.scheduler.sequences:
            break
        room.step()
        assert room.scheduler._held("a") <= 5
    assert len(third.generated) == 40


def test_reading_is_shared_by_accounts() -> None:
    """A short prompt is read while another account's long one goes on."""
    room = Room(budget=128, places=4)
    room.add(make(1500, 9, "long"))
    room.step()
    mine = make(60, 9, "mine")
    room.add(mine)
    assert room.steps_until(mine, 1) == 1


def test_a_waiting_sequence_can_leave() -> None:
    """Whoever leaves before it got a page leaves no trace."""
    room = Room(places=1)
    sequence = make(1)
    room.add(sequence)
    room.scheduler.remove(sequence)
    assert room.scheduler.sequences == []
    assert room.scheduler.next_step() is None
    assert not room.scheduler._waiting


def test_one_prompt_is_read_once_for_all_of_its_tenant() -> None:
    """The first reads it, the others wait and then read what is left of the last page; nobody else waits."""
    room = Room(places=9, budget=30, kept=9)
    first, second, third = (make(40, 9, "mine", b"a" * 32) for _ in range(3))
    room.add(first, second, third)
    assert [room.step() for _ in range(3)] == [[(first, 30)], [(first, 10)], [(first, 1), (second, 8), (third, 8)]]
    room = Room(places=9, budget=30, kept=9)
    room.add(
        first := make(40, 9, "mine", b"a" * 32),
        second := make(40, 9, "mine", b"a" * 32),
        other := make(40, 9, "another", b"b" * 32),
    )
    room.step()
    assert first.pages
    assert other.pages
    assert not second.pages


def test_whoever_waited_reads_by_itself_when_the_first_leaves() -> None:
    """So it does from the start where nothing is kept, and for a prompt without a full page."""
    room = Room(places=9, budget=16, kept=9)
    first, second = (make(40, 9, "", b"a" * 32) for _ in range(2))
    room.add(first, second)
    assert room.step() == [(first, 16)]
    room.scheduler.remove(first)
    assert room.step() == [(second, 16)]
    for tokens, kept in ((40, 0), (PAGE_TOKENS, 9)):
        room = Room(places=9, budget=99, kept=kept)
        both = [make(tokens, 9, "", b"a" * 32) for _ in range(2)]
        room.add(*both)
        assert room.step() == [(each, tokens) for each in both]
