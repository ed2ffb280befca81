"""Speculation: guess some tokens ahead, and let one step of the model check them all.

A guess never changes an answer. Each position's token is drawn from its own row of logits, with its own randomness
(`sampler`: seed and position decide), after all that came before it was drawn; a guess only means that the row has
been computed already when it turns out right. So in exact mode, where rows do not depend on what else a step
computes, text is identical with speculation and without, sampled text too. In fast mode each token is still a
draw from a row of the model, computed in a different batch. For guesses that are certain of themselves this is
rejection sampling: a guess g is right with probability p(g), and otherwise the token is one of p without g.

What shows is time: how fast an answer comes tells how well it could be guessed. Requests may turn guessing off, and
the API does for streams whose shape hides sizes.
"""

from collections.abc import Sequence
from typing import Final, Protocol

# With the token that is certain these are eight, as many as the bucketed shape flushes at a time.
MAX_GUESSES: Final = 7
# More rows than this in a step cost about what they save.
MAX_ROWS: Final = 32
_LOOKBACK: Final = 1 << 14
_RUN: Final = 3
# A step that also checks guesses takes longer; it pays when this many come true.
_WORTH: Final = 2
_MOST_MISSES: Final = 6


class Proposer(Protocol):
    """Guesses for one sequence."""

    def propose(self, new: Sequence[int], most: int) -> list[int]:
        """Take the ids that were added since the last call; guess at most `most` that follow them."""
        ...

    def close(self) -> None:
        """Give back what was held. May be called again."""
        ...


class PromptLookup(Proposer):
    """Guesses that what followed the latest ids last time follows again: copying, editing, quoting.

    Remembers where the runs of three among the last `lookback` ids were; a call takes time by the new ids alone.
    """

    def __init__(self, lookback: int = _LOOKBACK) -> None:
        self._ids: list[int] = []
        self._lookback = lookback
        # What follows the latest such run; the one at the very end is not in here yet.
        self._after: dict[tuple[int, ...], int] = {}

    def propose(self, new: Sequence[int], most: int) -> list[int]:
        for token in new:
            self._note(len(self._ids))
            self._ids.append(token)
        at = self._after.get(tuple(self._ids[-_RUN:]))
        guesses: list[int] = []
        if at is not None:
            for place in range(at, at + most):
                # Past the end the guesses themselves go on: what repeats keeps repeating.
                beyond = place - len(self._ids)
                guesses.append(self._ids[place] if beyond < 0 else guesses[beyond])
        return guesses

    def close(self) -> None:
        self._ids, self._after = [], {}

    def _note(self, end: int) -> None:
        old = end - self._lookback
        if old >= _RUN and self._after.get(run := tuple(self._ids[old - _RUN : old])) == old:
            del self._after[run]
        if end >= _RUN:
            self._after[tuple(self._ids[end - _RUN : end])] = end


class InTurn(Proposer):
    """Guesses by the first of several proposers that has any."""

    def __init__(self, *proposers: Proposer) -> None:
        self._proposers = proposers

    def propose(self, new: Sequence[int], most: int) -> list[int]:
        guesses: list[int] = []
        for proposer in self._proposers:
            # All of them read; after one has guessed the others need not.
            guesses += proposer.propose(new, 0 if guesses else most)
        return guesses

    def close(self) -> None:
        for proposer in self._proposers:
            proposer.close()


class Guesser:
    """Decides how far one sequence guesses ahead: less far and less often while guesses turn out wrong."""

    def __init__(self, proposer: Proposer, most: int) -> None:
        self._proposer, self._most = proposer, most
        self._read = self._guessed = self._misses = self._pause = 0

    def guess(self, prompt: list[int], generated: list[int], room: int) -> list[int]:
        """Return guesses of what follows, at most `room`. Prompt and generated only ever grow."""
        start = self._read - len(prompt)
        new = generated[start:] if start >= 0 else prompt[self._read :] + generated
        self._read += len(new)
        if self._guessed:
            self._learn(len(new) - 1)
        most = 0 if self._pause else min(max(1, self._most >> self._misses), room)
        guesses = self._proposer.propose(new, most)
        self._pause = max(0, self._pause - 1)
        self._guessed = len(guesses)
        return guesses

    def close(self) -> None:
        self._proposer.close()

    def _learn(self, right: int) -> None:
        if right >= min(_WORTH, self._guessed):
            self._misses = 0
        else:
            self._misses = min(self._misses + 1, _MOST_MISSES)
            self._pause = 1 << self._misses
