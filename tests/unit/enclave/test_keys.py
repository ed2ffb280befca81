"""Keysets: fresh keys, rotation, grace, replay store."""

import os

import pytest
from confide_enclave.keys import KeysetHolder
from confide_protocol.errors import LocalStateError, Replayed, UnknownKey
from confide_protocol.keyconfig import parse_key_configs
from confide_protocol.keyset import parse_keyset

from tests.unit.enclave.support import NOW, Clock


def make_holder(clock: Clock, **changes) -> KeysetHolder:
    options = {
        "simulated": True,
        "lifetime_s": 3600,
        "grace_s": 300,
        "replay_capacity": 10,
        "clock": clock,
        "random": os.urandom,
        **changes,
    }
    return KeysetHolder(bytes(32), **options)


def test_a_keyset_states_what_is_held():
    """The statement parses, names the manifest, offers the one required suite, and starts before now."""
    generation = make_holder(Clock()).current
    keyset = parse_keyset(generation.keyset.encoded)
    assert keyset.digest == generation.digest
    (config,) = parse_key_configs(keyset.ohttp_keys)
    assert (config.kem_id, config.symmetric) == (0x647A, ((1, 2),))
    assert (keyset.not_before_unix_s, keyset.not_after_unix_s) == (NOW - 60, NOW - 60 + 3600)
    assert keyset.simulated


def test_no_key_is_shown():
    """Neither repr nor str of a generation holds a private half."""
    shown = repr(make_holder(Clock()).current)
    assert "PrivateKey" not in shown
    assert "_seen" not in shown


def test_rotation_comes_one_grace_before_the_end():
    """The previous keyset is live until its not-after, and gone then."""
    clock = Clock()
    holder = make_holder(clock)
    first = holder.current
    clock.now = first.keyset.not_after_unix_s - 301
    assert holder.current is first
    clock.now += 1
    second = holder.current
    assert second is not first
    assert not {first.keyset.receipt_ed25519, first.keyset.ohttp_keys} & {
        second.keyset.receipt_ed25519,
        second.keyset.ohttp_keys,
    }
    assert holder.find(first.digest) is first
    clock.now += 299
    assert holder.find(first.digest) is first
    clock.now += 1
    assert holder.find(first.digest) is None
    assert holder.find(second.digest) is second


def test_a_clock_that_jumps_past_everything_leaves_no_old_key():
    """After a long sleep only the new keyset is live."""
    clock = Clock()
    holder = make_holder(clock)
    first = holder.current
    clock.now += 24 * 3600
    assert holder.find(first.digest) is None
    assert holder.current is not first


@pytest.mark.parametrize("lifetime_s", [2, 10, 86_400])
def test_a_new_keyset_is_not_due_at_once(lifetime_s):
    """Even the shortest life does not rotate on every look."""
    holder = make_holder(Clock(), lifetime_s=lifetime_s, grace_s=1)
    assert holder.current is holder.current


def test_a_seen_request_is_refused_for_good():
    """The store forgets nothing while its key lives."""
    generation = make_holder(Clock()).current
    generation.admit(b"a" * 32)
    with pytest.raises(Replayed):
        generation.admit(b"a" * 32)
    generation.admit(b"b" * 32)


def test_a_full_store_evicts_nothing_and_rotates_the_key():
    """Nearly full: a new keyset. Full: the old one opens nothing more."""
    holder = make_holder(Clock())
    first = holder.current
    for n in range(9):
        first.admit(bytes([n]))
    assert holder.current is not first
    assert holder.find(first.digest) is first
    first.admit(b"last")
    with pytest.raises(UnknownKey):
        first.admit(b"one more")
    with pytest.raises(Replayed):
        first.admit(bytes([0]))


def test_evidence_belongs_to_its_generation():
    """A statement issued for one keyset is unknown to the next."""
    clock = Clock()
    holder = make_holder(clock)
    first = holder.current
    first.issue(b"s" * 32)
    clock.now += 3600 - 360
    assert first.issued(b"s" * 32)
    assert not holder.current.issued(b"s" * 32)


@pytest.mark.parametrize("random", [bytes, lambda n: os.urandom(n - 1)])
def test_a_failed_random_number_generator_makes_no_keys(random):
    """Zeros, or too few bytes, are refused."""
    with pytest.raises(LocalStateError):
        make_holder(Clock(), random=random)


def test_tenant_salts():
    """One key, one salt in this process; no key, a salt of nobody's; another process, another salt."""
    holder, other = make_holder(Clock()), make_holder(Clock())
    key = os.urandom(32)
    assert holder.tenant_salt(key) == holder.tenant_salt(key) != other.tenant_salt(key)
    assert holder.tenant_salt(None) != holder.tenant_salt(None)
    assert len(holder.tenant_salt(key)) == 32


def test_a_keyset_takes_the_salts_of_tenants_with_it():
    """With the next keyset the same key has another salt, and whoever kept anything under the old one is told."""
    clock, told = Clock(), []
    holder = make_holder(clock, forget=lambda: told.append(clock()))
    key, digest = os.urandom(32), holder.current.digest
    salt = holder.tenant_salt(key)
    clock.now += 60
    assert (holder.current.digest, holder.tenant_salt(key), told) == (digest, salt, [])
    clock.now = holder.current.keyset.not_after_unix_s - 1
    assert holder.current.digest != digest
    assert holder.tenant_salt(key) != salt
    assert told == [clock()]
