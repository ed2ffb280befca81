"""Make every mutation of one case: flips by its layouts, parts of other cases, and what it lists itself."""

from collections.abc import Iterator, Sequence

from tests.conformance import FLIPS_A_FILE, Case, Field, Layout, Mutation
from tests.conformance.parts import KINDS, part_of

SMALL_BYTES = 8
SAMPLED_BYTES = 256
_CASE_BIT = 5


def mutations(case: Case, others: Sequence[Case], *, full: bool) -> Iterator[Mutation]:
    """Yield every mutation; without `full` the flips of long fields are a fixed sample (see `flips`)."""
    for role, layout in case.layouts.items():
        data = case.files[role]
        for each, bit in flips(data, layout, full=full, limit=case.max_flips):
            at = bit // 8
            changed = data[:at] + bytes((data[at] ^ 1 << bit % 8,)) + data[at + 1 :]
            yield Mutation("flip", f"{role}.{each.name}", {role: changed}, each.checks, each.dont_care)
    for role in case.files if case.kind in KINDS else ():
        part = part_of(case.kind, role)
        for other in others:
            given = other.files.get(role)
            if given is None or given == case.files[role]:
                continue
            same_root = bool(part.root) and other.files[part.root] == case.files[part.root]
            if not same_root and (not case.platform or other.platform != case.platform):
                yield Mutation("swap", f"{role} of {other.name}", {role: given}, part.foreign | part.form)
            if part.spliced:
                yield from _spliced(case, role, other)
    yield from case.more


def _spliced(case: Case, role: str, other: Case) -> Iterator[Mutation]:
    """Replace each field by the same field of other evidence."""
    data = case.files[role]
    theirs = {each.name: other.files[role][each.start : each.end] for each in other.layouts[role]}
    for each in case.layouts[role]:
        given = theirs.get(each.name)
        if given is not None and len(given) == each.size and given != data[each.start : each.end]:
            changed = data[: each.start] + given + data[each.end :]
            name = f"{role}.{each.name} of {other.name}"
            yield Mutation("splice", name, {role: changed}, each.checks, each.dont_care)


def flips(data: bytes, layout: Layout, *, full: bool, limit: int = FLIPS_A_FILE) -> Iterator[tuple[Field, int]]:
    """Choose which bits are flipped, the same in every run: with `full` all of them.

    Otherwise every bit of fields of up to 8 bytes, one bit of each byte of longer ones, at 256 places of those that
    are longer still; and where that makes more flips of one file than `limit`, every nth, of each field the first.
    """
    chosen = [(each, bit) for each in layout for bit in _bits(data, each, full=full)]
    step = 1 if full else -(-len(chosen) // limit)
    last: Field | None = None
    for number, (each, bit) in enumerate(chosen):
        if number % step == 0 or each is not last:
            yield each, bit
        last = each


def _bits(data: bytes, each: Field, *, full: bool) -> Iterator[int]:
    if full or each.size <= SMALL_BYTES:
        for bit in range(8 * each.start, 8 * each.end):
            if not (each.hex_text and bit % 8 == _CASE_BIT and chr(data[bit // 8]).isalpha()):
                yield bit
        return
    places = range(each.start, each.end)
    if each.size > SAMPLED_BYTES:
        places = range(each.start, each.end, -(-each.size // SAMPLED_BYTES))
    for at in places:
        bit = (at * 5 + at // 8) % 8
        if each.hex_text and bit == _CASE_BIT and chr(data[at]).isalpha():
            bit = 0
        yield 8 * at + bit
