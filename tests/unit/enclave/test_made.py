"""What a process says of the keysets that it made."""

import pytest
from confide_enclave.made import KEYSETS_TOLD, Made
from confide_protocol import labels

from tests.unit.enclave.support import Clock, Node
from tests.unit.enclave.test_keys import make_holder

pytestmark = pytest.mark.anyio
ASKED = f"/evidence?nonce={'ab' * 32}"


def told(made: Made) -> list[str]:
    name, value = made.field
    assert name == labels.FIELD_KEYSETS.encode()
    return value.decode().split(",")


def test_the_latest_stands_first_and_is_named_once() -> None:
    """Two that are live count in the order they were made."""
    clock, made = Clock(), Made()
    holder = make_holder(clock)
    made.note(holder.live)
    made.note(holder.live)
    first = holder.current.digest.hex()
    assert told(made) == [first]
    clock.now = holder.current.keyset.not_after_unix_s - 1
    made.note(holder.live)
    assert told(made) == [holder.current.digest.hex(), first]


def test_what_another_holder_made_stays_within_the_bound() -> None:
    """A reload makes a new holder; the oldest are forgotten."""
    made = Made()
    holders = [make_holder(Clock()) for _ in range(KEYSETS_TOLD + 1)]
    for holder in holders:
        made.note(holder.live)
    assert told(made) == [holder.current.digest.hex() for holder in reversed(holders[1:])]


async def test_evidence_names_a_keyset_past_its_grace() -> None:
    """It can open nothing more, and what it opened was run here."""
    node = Node()
    first = node.keyset
    assert (await node.call("GET", ASKED)).headers[labels.FIELD_KEYSETS] == first.digest.hex()
    node.clock.now = first.not_after_unix_s + labels.KEYSET_GRACE_S + 1
    said = (await node.call("GET", ASKED)).headers[labels.FIELD_KEYSETS].split(",")
    assert node.holder.find(first.digest) is None
    assert said == [node.keyset.digest.hex(), first.digest.hex()]
