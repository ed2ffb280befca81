"""Judge a case's mutations and count."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.conformance import Case, Judge, Judged, Mutation

MAX_SHOWN = 12


@dataclass
class Score:
    """Counts of one case. `holes` name mutations that were accepted or refused for another reason."""

    case: str
    sound: bool = True
    mutations: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    named: Counter[str] = field(default_factory=Counter)
    dont_care: int = 0
    dont_care_accepted: int = 0
    dont_care_bytes: int = 0
    total_bytes: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    holes: Counter[str] = field(default_factory=Counter)

    @property
    def made(self) -> int:
        return sum(self.mutations.values())

    @property
    def good(self) -> int:
        return sum(self.named.values())


def score(case: Case, made: Iterable[Mutation], judge: Judge | None = None) -> Score:
    """Judge the case itself, which has to be accepted, and then each mutation of it."""
    judge = judge or case.judge
    found = Score(case.name)
    genuine = judge(case.files, case.now_unix_s, case.nonce)
    if genuine.refused:
        found.sound = False
        found.holes[f"the evidence itself is refused: {sorted(genuine.failed or ())}"] += 1
    for role, layout in case.layouts.items():
        found.total_bytes += len(case.files[role])
        for each in layout:
            if each.dont_care:
                found.dont_care_bytes += each.size
                found.reasons[f"{role}.{each.name}"] = each.dont_care
    for mutation in made:
        files = {role: data for role, data in {**case.files, **mutation.changed}.items() if data is not None}
        now = case.now_unix_s if mutation.now_unix_s is None else mutation.now_unix_s
        judged = judge(files, now, case.nonce if mutation.nonce is None else mutation.nonce)
        _count(found, mutation, judged, genuine)
    return found


def _count(found: Score, mutation: Mutation, judged: Judged, genuine: Judged) -> None:
    if mutation.dont_care:
        found.dont_care += 1
        if not judged.refused:
            found.dont_care_accepted += 1
            found.reasons.setdefault(mutation.name, mutation.dont_care)
            if judged.claims is not None and not _says_nothing_new(judged.claims, genuine.claims):
                found.holes[
                    f"{mutation.kind} {mutation.name}: accepted, and says something that was not signed"
                ] += 1
        return
    found.mutations[mutation.kind] += 1
    if not judged.refused:
        found.holes[f"{mutation.kind} {mutation.name}: accepted"] += 1
        return
    found.refused[mutation.kind] += 1
    if judged.failed is None or judged.failed & mutation.checks:
        found.named[mutation.kind] += 1
    else:
        said, expected = ", ".join(sorted(judged.failed)) or "nothing", ", ".join(sorted(mutation.checks))
        found.holes[f"{mutation.kind} {mutation.name}: refused for {said}, not for any of {expected}"] += 1


def _says_nothing_new(claims: object, genuine: object) -> bool:
    """Say whether every claim is one that the genuine evidence makes too."""
    assert isinstance(claims, dict)
    assert isinstance(genuine, dict)
    for group, of_group in claims.items():
        own = genuine.get(group, {})
        # How many events could be recomputed is no statement of the evidence.
        if any(own.get(name) != value for name, value in of_group.items() if name != "recomputed"):
            return False
    return True


def table(scores: Sequence[Score]) -> str:
    """Align the counts for a person, and name what is wrong below."""
    lines = [("evidence", "mutations", "refused", "named", "don't care", "of bytes", "score")]
    for each in scores:
        lines.append(
            (
                each.case,
                f"{each.made:,}",
                f"{sum(each.refused.values()):,}",
                f"{each.good:,}",
                f"{each.dont_care_bytes:,}",
                f"{each.total_bytes:,}",
                percent(each.good, each.made),
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(7)]
    text = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    for each in scores:
        text += [f"{each.case}: {count} x {hole}" for hole, count in each.holes.most_common(MAX_SHOWN)]
    return "\n".join(text)


def total(scores: Sequence[Score]) -> str:
    made, good = sum(each.made for each in scores), sum(each.good for each in scores)
    refused = sum(sum(each.refused.values()) for each in scores)
    spared = sum(each.dont_care for each in scores)
    return (
        f"conformance: {len(scores)} pieces of evidence, {made:,} mutations, {refused:,} refused, {good:,} with "
        f"the named reason: {percent(good, made)}; {spared:,} more of bytes that may be changed"
    )


def percent(part: int, whole: int) -> str:
    """Round down, so that 100 % is said of all alone."""
    return f"{1000 * part // whole / 10:.1f} %" if whole else "-"
