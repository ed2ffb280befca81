"""Verification once for all, renewal in time, and what is refused before a byte leaves."""

import threading
import time
from pathlib import Path

import pytest
from confide import relay as relay_module
from confide.fetch import Limits, Link, fetch_evidence, gateway_url
from confide.policy_memory import PolicyMemory
from confide.relay import Relay, read_policy
from confide_attestation.errors import AppraisalRejected
from confide_protocol.errors import (
    ConfideError,
    ConfigError,
    LocalStateError,
    PolicyError,
    RelayRefused,
    RelayUnreachable,
    TooLarge,
)

from tests.fakes.child import in_child
from tests.fakes.peer import Peer, Wire, a_peer
from tests.fakes.scene import NOW

ORIGIN = ("http", "gateway.test", None)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    """Serve the evidence of one peer in place of the network."""
    wire = Wire(a_peer(), None)
    monkeypatch.setattr(relay_module, "fetch_evidence", wire.fetch)
    return wire


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://h", "http://h"),
        ("https://H:8443/v1/", "https://h:8443"),
        ("https://h/a/b/v1", "https://h/a/b"),
        ("http://[::1]:80/", "http://[::1]:80"),
    ],
)
def test_the_gateways_url_is_read(given: str, url: str) -> None:
    """`/v1` and slashes at the end do not count; a path before them does."""
    assert gateway_url(given) == url


@pytest.mark.parametrize(
    "bad", ["", "h:80", "ftp://h", "http://", "http://u:p@h", "http://h/?q", "http://h:x", "http://["]
)
def test_a_url_that_is_none_is_refused(bad: str) -> None:
    """Anything but a plain http or https URL is a ConfigError."""
    with pytest.raises(ConfigError, match="URL"):
        gateway_url(bad)


def test_without_a_policy_nothing_is_sent(wire: Wire) -> None:
    """No policy is a PolicyError that says what to do; an unreadable one likewise."""
    with pytest.raises(PolicyError, match="policy="):
        Relay("http://gateway.test", None)
    with pytest.raises(PolicyError, match="/nowhere"):
        read_policy("/nowhere")
    assert wire.fetched == []


def test_expired_and_rolled_back_policies_are_refused_before_a_byte(wire: Wire) -> None:
    """A policy past its end, or below the remembered serial, is a PolicyError at once."""
    peer, memory = a_peer(), PolicyMemory(None)
    memory.remember(peer.policy.id, 9)
    with pytest.raises(PolicyError, match="serial"):
        peer.relay(memory=memory)
    with pytest.raises(PolicyError, match="not_after"):
        peer.relay(clock=lambda: NOW + 400 * 86_400.0)
    assert wire.fetched == []


def test_an_accepted_policy_is_remembered(wire: Wire, tmp_path: Path) -> None:
    """The floor rises only with an appraisal that passed."""
    memory = PolicyMemory(tmp_path / "policies.json")
    with pytest.raises(AppraisalRejected):
        a_peer().relay(memory=memory, allow_simulated=False).ready()
    assert memory.floor(a_peer().policy.id) == 0
    a_peer().relay(memory=memory).ready()
    assert memory.floor(a_peer().policy.id) == a_peer().policy.serial


def test_a_policy_that_cannot_be_remembered_is_not_trusted(wire: Wire) -> None:
    """Where the floor cannot be written, every call fails, not the first alone."""
    relay = a_peer().relay(memory=Unwritable(None))
    for _ in range(2):
        with pytest.raises(ConfigError, match="policy memory"):
            relay.ready()
    assert relay.session.verified is None


class Unwritable(PolicyMemory):
    def remember(self, policy_id: str, serial: int) -> None:
        raise ConfigError(policy_id, "policy memory", f"serial {serial} cannot be written")


def test_one_verification_serves_many_threads(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that come at once share one fetch; later calls need none."""
    relay = a_peer().relay()
    gate = threading.Barrier(8)

    def slow(*args) -> bytes:
        time.sleep(0.05)
        return wire.fetch(*args)

    monkeypatch.setattr(relay_module, "fetch_evidence", slow)

    def run() -> None:
        gate.wait()
        relay.ready()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    relay.ready()
    assert len(wire.fetched) == 1


def test_a_shared_failure_reaches_every_waiter(monkeypatch: pytest.MonkeyPatch) -> None:
    """All who waited for one failed verification get its error; the next caller tries anew."""
    calls: list[int] = []

    def fail(*args) -> bytes:
        calls.append(1)
        time.sleep(0.4 if len(calls) == 1 else 0)
        raise RelayUnreachable

    monkeypatch.setattr(relay_module, "fetch_evidence", fail)
    relay, faults = a_peer().relay(), []
    gate = threading.Barrier(4)

    def run() -> None:
        gate.wait()
        try:
            relay.ready()
        except ConfideError as fault:
            faults.append(type(fault))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == [RelayUnreachable] * 4
    assert len(calls) == 1
    with pytest.raises(RelayUnreachable):
        relay.ready()
    assert len(calls) == 2


@pytest.mark.parametrize("status", [401, 403, 429])
def test_one_callers_bad_key_is_no_others_answer(wire: Wire, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits with another API key verifies with that; who waits with the same one is refused too."""
    asked, waiting = threading.Event(), threading.Event()

    def fetch(url, nonce, authorization, *rest) -> bytes:
        if authorization == {"authorization": "Bearer bad"}:
            asked.set()
            waiting.wait(5)
            raise RelayRefused(status)
        return wire.fetch(url, nonce, authorization, *rest)

    monkeypatch.setattr(relay_module, "fetch_evidence", fetch)
    relay, ends = a_peer().relay(), {}

    def run(name: str, key: str) -> None:
        try:
            ends[name] = relay.ready(key).keyset.digest
        except RelayRefused as refusal:
            ends[name] = refusal.status

    threads = [threading.Thread(target=run, args=("first", "Bearer bad"))]
    threads[0].start()
    assert asked.wait(5)
    threads += [
        threading.Thread(target=run, args=pair) for pair in (("same", "Bearer bad"), ("good", "Bearer good"))
    ]
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.1)
    waiting.set()
    for thread in threads:
        thread.join(5)
    assert ends["first"] == status
    assert ends["good"] == relay.ready().keyset.digest
    assert ends["same"] in (status, ends["good"])


def test_a_call_is_sealed_under_its_callers_cache_key(wire: Wire) -> None:
    """The relay hands the caller's authorization on to where the tenant is named."""
    peer = Peer()
    wire.peer, relay, keys = peer, peer.relay(), []
    for key in (None, "Bearer one", "Bearer two"):
        relay.ready(key)
        peer.open(relay.seal(relay.call("POST", ORIGIN, "/v1/x", [], b"{}"), key).body)
        keys.append(peer.fields["confide-cache-key"])
    assert len(set(keys)) == 3


def test_renewal_runs_behind_the_callers_back(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the end of validity a call goes on at once and a thread renews; a failed one is tried again later."""
    now = [float(NOW)]
    relay = a_peer().relay(clock=lambda: now[0])
    until = relay.ready().valid_until_unix_s
    started, release = threading.Event(), threading.Event()

    def hang(*args) -> bytes:
        started.set()
        release.wait(5)
        raise RelayUnreachable

    monkeypatch.setattr(relay_module, "fetch_evidence", hang)
    now[0] = until - 10
    assert relay.ready().valid_until_unix_s == until
    assert started.wait(5)
    relay.ready()
    release.set()
    assert relay._renewal is not None
    relay._renewal.join(5)
    relay.ready()
    assert not relay._renewal.is_alive()
    monkeypatch.setattr(relay_module, "fetch_evidence", wire.fetch)
    now[0] += relay_module.RENEW_RETRY_S - 55
    relay.ready()
    now[0] = until
    with pytest.raises(AppraisalRejected):
        relay.ready()


def test_a_key_that_is_refused_delays_nobody_elses_renewal(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 401 the next caller renews at once; after a fault of the way it is left alone for a while."""
    now = [float(NOW)]
    relay = a_peer().relay(clock=lambda: now[0])
    now[0] = relay.ready("good").valid_until_unix_s - 10
    asked: list[str] = []

    def refuse(url: str, nonce: bytes, fields: dict[str, str], *more: object) -> bytes:
        asked.append(fields["authorization"])
        raise RelayRefused(401) if asked[-1] == "bad" else RelayUnreachable

    monkeypatch.setattr(relay_module, "fetch_evidence", refuse)
    for key in ("bad", "good", "good"):
        relay.ready(key)
        assert relay._renewal is not None
        relay._renewal.join(5)
    assert asked == ["bad", "good"]


def test_replacing_a_stale_key_needs_another_one(wire: Wire) -> None:
    """After a refused key there is something new to seal to only if fresh evidence names another keyset."""
    relay = a_peer().relay()
    stale = relay.ready().keyset.digest
    refused_at_s = time.monotonic()
    assert relay.replace(stale, None, refused_at_s) is False
    wire.peer = Peer()
    assert relay.replace(stale, None, refused_at_s) is True
    assert len(wire.fetched) == 3
    assert relay.replace(stale, None, refused_at_s) is True
    assert len(wire.fetched) == 3
    assert relay.replace(stale, None, time.monotonic()) is True
    assert len(wire.fetched) == 4


@pytest.mark.parametrize(
    ("origin", "target"),
    [
        (("https", "gateway.test", None), "/v1/x"),
        (("http", "other.test", None), "/v1/x"),
        (("http", "gateway.test", 81), "/v1/x"),
    ],
)
def test_requests_to_other_places_are_refused(wire: Wire, origin: tuple, target: str) -> None:
    """A redirect or a wrong base URL cannot lead a request past the seal."""
    with pytest.raises(LocalStateError):
        a_peer().relay().call("GET", origin, target, [], b"")


def test_a_path_prefix_stays_outside(wire: Wire) -> None:
    """Behind a gateway with a path prefix the sealed path is OpenAI's own; other paths are refused."""
    relay = Relay("http://gateway.test/ai/v1", a_peer().policy, memory=PolicyMemory(None), clock=lambda: float(NOW))
    assert relay.call("GET", ORIGIN, "/ai/v1/models?x=1", [], b"").path == "/v1/models?x=1"
    with pytest.raises(LocalStateError):
        relay.call("GET", ORIGIN, "/v1/models", [], b"")


def test_a_request_has_a_limit(wire: Wire) -> None:
    """A body over max_request_bytes never leaves."""
    relay = a_peer().relay()
    with pytest.raises(TooLarge):
        relay.call("POST", ORIGIN, "/v1/x", [], bytes(relay.limits.max_request_bytes + 1))


@pytest.mark.parametrize(
    ("target", "fields"),
    [("/v1/" + "x" * 29_000, []), ("/v1/x", [("x", "y" * 29_000)]), ("/v1/x", [("x", "y")] * 6000)],
)
def test_a_head_has_a_limit(wire: Wire, target: str, fields: list[tuple[str, str]]) -> None:
    """A head that no enclave would read is refused here, by its name."""
    relay = a_peer().relay()
    relay.call("POST", ORIGIN, "/v1/x", [("x", "y" * 27_000)], b"")
    with pytest.raises(TooLarge, match="max_head_bytes"):
        relay.call("POST", ORIGIN, target, fields, b"")


def test_the_relays_own_key_goes_before_the_callers(wire: Wire) -> None:
    """A key that a library found by itself stays here; the bearer of a request is shown where a relay has none."""
    a_peer().relay(api_key="own").verify("Bearer theirs")
    a_peer().relay().verify("Bearer theirs")
    assert wire.fetched == [{"authorization": "Bearer own"}, {"authorization": "Bearer theirs"}]


def test_a_forked_child_starts_its_locks_anew(wire: Wire) -> None:
    """A lock held by another thread at the fork does not stop the child."""
    relay = a_peer().relay()
    relay._lock.acquire()
    assert in_child(lambda: relay.ready().valid_until_unix_s > NOW)


def test_fetching_bounds_and_names_its_faults() -> None:
    """Where nobody listens it is RelayUnreachable."""
    with pytest.raises(RelayUnreachable):
        fetch_evidence("http://127.0.0.1:1", bytes(32), {}, Limits(), Link())
    assert issubclass(RelayRefused, ConfideError)


def test_waking_after_the_keyset_has_ended(wire: Wire) -> None:
    """After a sleep longer than the keyset's life nothing is sealed to it: fresh evidence comes first."""
    now = [float(NOW)]
    relay = a_peer().relay(clock=lambda: now[0])
    until = relay.ready().valid_until_unix_s
    call = relay.call("POST", ORIGIN, "/v1/x", [], b"{}")
    now[0] = until + 8 * 3600.0
    assert relay.session.attested(int(now[0])) is None
    with pytest.raises(LocalStateError):
        relay.seal(call)
    with pytest.raises(AppraisalRejected):  # of the same peer, whose keys have ended
        relay.ready()
    assert len(wire.fetched) == 2


def test_a_clock_set_back_trusts_nothing_that_has_yet_to_begin(wire: Wire) -> None:
    """Evidence of a time to come is refused, and what it was does not hold up later calls."""
    now = [float(NOW)]
    relay = a_peer().relay(clock=lambda: now[0])
    now[0] = NOW - 86_400.0
    with pytest.raises(AppraisalRejected):
        relay.ready()
    now[0] = float(NOW)
    assert relay.ready().valid_until_unix_s > NOW
