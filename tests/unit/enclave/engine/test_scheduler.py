"""The scheduler over integers alone."""

from confide_enclave.engine import Sampling
from confide_enclave.engine.scheduler import Scheduler
from confide_enclave.engine.sequence import Sequence
from confide_enclave.engine.tokens import TextStream


def make(prompt_tokens: int) -> Sequence:
    return Sequence([7] * prompt_tokens, Sampling(0, 1, 9, 0), 9, TextStream(()), print)


def test_long_prompts_are_read_in_chunks_beside_decoding() -> None:
    """Each step decodes whoever can and reads one bounded chunk of the eldest unread prompt."""
    scheduler, first, second, third = Scheduler(3, 4), make(2), make(9), make(1)
    for sequence in (first, second, third):
        scheduler.add(sequence)
    seen = []
    for _ in range(5):
        step = scheduler.next_step()
        seen.append((step.prefill, step.chunk, step.decoding))
        if step.prefill:
            step.prefill.computed += step.chunk
    assert seen == [
        (first, 2, ()),
        (second, 4, (first,)),
        (second, 4, (first,)),
        (second, 1, (first,)),
        (third, 1, (first, second)),
    ]


def test_blocks_are_given_lowest_first_and_in_order_of_arrival() -> None:
    """A freed block goes to whoever waits longest; decoding rows come in order of blocks."""
    scheduler = Scheduler(2, 4)
    sequences = [make(1) for _ in range(4)]
    for sequence in sequences:
        scheduler.add(sequence)
    scheduler.next_step()
    assert [sequence.block for sequence in sequences] == [0, 1, -1, -1]
    scheduler.remove(sequences[0])
    scheduler.next_step()
    assert [sequence.block for sequence in sequences] == [-1, 1, 0, -1]
    for sequence in sequences[1:3]:
        sequence.computed = 1
    assert [sequence.block for sequence in scheduler.next_step().decoding] == [0, 1]


def test_a_waiting_sequence_can_leave() -> None:
    """Whoever leaves before it got a block leaves no trace."""
    scheduler, sequence = Scheduler(1, 4), make(1)
    scheduler.add(sequence)
    scheduler.remove(sequence)
    assert scheduler.sequences == []
    assert scheduler.next_step() is None
