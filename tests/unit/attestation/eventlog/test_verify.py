"""A log is judged by a quote: replay, digests, dstack's compose hash, and what is shown of it."""

import copy

import pytest
from confide_attestation.eventlog.ids import EVENT_LOG_CHECKS, EVENT_LOG_FILES
from confide_attestation.eventlog.judge import verify_event_log
from confide_attestation.result import AttestationResult, Outcome, Verdict

from tests.unit.attestation.eventlog.support import (
    BOOT,
    COMPOSE,
    NOW,
    REPORT_DATA,
    encode,
    failed,
    firmware,
    intel,
    log,
    quote_of,
    runtime,
)


def judge(data: bytes, quote: bytes | None = None, collateral: bool = False) -> AttestationResult:
    return verify_event_log(
        data,
        quote_of(data) if quote is None else quote,
        now_unix_s=NOW,
        collateral_json=intel().collateral() if collateral else None,
        root_der=intel().root if collateral else None,
    )


@pytest.mark.parametrize("version", [1, 2])
def test_a_genuine_log_is_authentic(version: int) -> None:
    """Both versions of dstack's digests replay, and the system's own values are shown."""
    result = judge(encode(log(runtime("key: app", b"own", 2), version=version)), collateral=True)
    assert (result.verdict, result.simulated) == (Verdict.AUTHENTIC, True)
    assert result.claims["dstack"]["compose_hash"] == COMPOSE.hex()
    assert result.claims["event_log"]["quote_judged"] is True
    assert result.claims["events"]["rtmr3[6]"] == "key: app: own"


def test_without_collateral_the_quote_is_not_judged() -> None:
    """The log fits the quote; whose quote it is nobody said."""
    result = judge(encode(log()))
    unjudged = next(check for check in result.checks if check.id == "log_quote_unjudged")
    assert (result.verdict, unjudged.outcome) == (Verdict.AUTHENTIC, Outcome.SKIP)
    assert "the quote's signature was not judged" in unjudged.detail
    assert result.claims["event_log"]["quote_judged"] is False
    assert "cpu0" not in result.claims


def test_a_refused_quote_shows_no_event() -> None:
    """A log that fits a forged quote proves nothing."""
    data = encode(log())
    quote = bytearray(quote_of(data))
    quote[48 + 520] ^= 1
    result = judge(data, bytes(quote), collateral=True)
    assert {"quote_signature", "log_quote_unjudged"} <= failed(result)
    assert (result.verdict, dict(result.claims)) == (Verdict.REFUSED, {})


def test_only_what_was_recomputed_is_shown() -> None:
    """Text beside a digest that it does not make stays hidden, however well the log replays."""
    events = judge(encode(log())).claims["events"]
    assert "ACPI DATA" not in events.values()
    assert "initrd" not in events.values()
    assert events["rtmr0[0]"] == "SecureBoot"
    assert events["rtmr1[0]"] == "0x00000000"


def test_every_result_has_the_same_checks() -> None:
    """Whatever is given, each id is there once."""
    good = encode(log())
    for data, quote in ((good, quote_of(good)), (b"", quote_of(good)), (good, b""), (b"[1]", b"x" * 100)):
        assert [check.id for check in judge(data, quote).checks] == list(EVENT_LOG_CHECKS)


@pytest.mark.parametrize("number", range(4))
def test_a_changed_digest_breaks_its_register(number: int) -> None:
    """Each register is replayed by itself."""
    genuine = log()
    quote = quote_of(encode(genuine))
    changed = copy.deepcopy(genuine)
    event = next(event for event in changed if event["imr"] == number)
    event["digest"] = "ab" * 48
    result = judge(encode(changed), quote)
    assert f"rtmr{number}_replay_mismatch" in failed(result)
    assert (result.verdict, dict(result.claims)) == (Verdict.REFUSED, {})


@pytest.mark.parametrize("lie", ["omitted", "doubled", "swapped", "moved", "as no action"])
def test_order_and_number_of_events_count(lie: str) -> None:
    """An event that is left out, repeated, reordered, moved or declared unmeasured is seen."""
    genuine = log()
    quote = quote_of(encode(genuine))
    changed = copy.deepcopy(genuine)
    if lie == "omitted":
        del changed[-1]
    elif lie == "doubled":
        changed.append(changed[-1])
    elif lie == "swapped":
        changed[-1], changed[-2] = changed[-2], changed[-1]
    elif lie == "moved":
        changed[0]["imr"] = 1
    else:
        changed[6]["event_type"] = 3
    assert any(reason.endswith("replay_mismatch") for reason in failed(judge(encode(changed), quote)))


@pytest.mark.parametrize(
    ("field", "value"),
    [("event", "compose-hush"), ("event_payload", "00" * 32), ("event_type", 0x08000002), ("event_type", 4)],
)
def test_the_text_of_a_runtime_event_is_recomputed(field: str, value: str | int) -> None:
    """Name, payload and type of what dstack measured cannot be changed, though the log still replays."""
    changed = log()
    quote = quote_of(encode(changed))
    changed[6][field] = value
    result = judge(encode(changed), quote)
    assert "event_digest_mismatch" in failed(result)
    assert not any(reason.endswith("replay_mismatch") for reason in failed(result))


def test_a_colon_cannot_move_between_name_and_payload() -> None:
    """Name `a:b` with payload `c` has the digest of name `a` with payload `b:c`: such names are refused."""
    boot = [*BOOT[:2], ("compose-hash", b"x:" + COMPOSE[2:]), *BOOT[3:]]
    genuine = log(boot=boot)
    assert failed(judge(encode(genuine))) == set()
    changed = copy.deepcopy(genuine)
    changed[6] |= {"event": "compose-hash:x", "event_payload": COMPOSE[2:].hex()}
    assert "event_digest_mismatch" in failed(judge(encode(changed), quote_of(encode(genuine))))


def test_an_application_cannot_bring_its_own_compose_hash() -> None:
    """A second one is a duplicate, whether the first is there or not."""
    own = runtime("compose-hash", b"\2" * 32)
    assert failed(judge(encode(log(own)))) == {"event_duplicate"}
    without = [event for event in BOOT if event[0] != "compose-hash"]
    assert failed(judge(encode(log(own, boot=without)))) == {"compose_hash"}
    early = [*without[:3], *[event for event in BOOT if event[0] == "boot-mr-done"]]
    assert failed(judge(encode(log(own, boot=early)))) == {"compose_hash"}


@pytest.mark.parametrize("name", [name for name, _ in BOOT if name != "compose-hash"])
def test_every_system_event_is_there_once(name: str) -> None:
    """None of dstack's own can be repeated by the application."""
    assert failed(judge(encode(log(runtime(name, b"again"))))) == {"event_duplicate"}


@pytest.mark.parametrize("payload", [b"", COMPOSE[:20], COMPOSE + b"\0"])
def test_size_of_the_compose_hash(payload: bytes) -> None:
    """It is a SHA-256."""
    boot = [(name, payload if name == "compose-hash" else data) for name, data in BOOT]
    assert failed(judge(encode(log(boot=boot)))) == {"compose_hash"}


def test_text_of_firmware_events_may_be_left_out_but_not_be_wrong() -> None:
    """dstack leaves out what firmware measured; what is there is recomputed where the TCG says how."""
    events = log()
    quote = quote_of(encode(events))
    events[0]["event_payload"] = ""
    assert failed(judge(encode(events), quote)) == set()
    events[0]["event_payload"] = b"SecureBoof".hex()
    assert failed(judge(encode(events), quote)) == {"event_digest_mismatch"}


def test_registers_that_are_all_zero_prove_nothing() -> None:
    """On Azure nothing is measured into RTMRs: an empty log that replays is no evidence."""
    nothing = encode([firmware(0, 3, b"no action")])
    assert {"rtmrs_zero", "compose_hash"} <= failed(judge(nothing))


def test_dstacks_answer_brings_its_own_quote() -> None:
    """It has to be the quote that is judged, and its report data those of the quote."""
    events = encode(log())
    quote = quote_of(events)
    answer = {
        "quote": quote.hex(),
        "event_log": events.decode(),
        "report_data": REPORT_DATA.hex(),
        "vm_config": "{}",
    }
    assert failed(judge(encode(answer), quote)) == set()
    assert failed(judge(encode({**answer, "event_log": log()}), quote)) == set()
    for changed in (
        {"quote": quote_of(events, b"\1" * 64).hex()},
        {"quote": "00"},
        {"report_data": "01" * 64},
    ):
        assert failed(judge(encode({**answer, **changed}), quote)) == {"log_quote_mismatch"}


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[", b"[]", b"{}", b"[1]", b"[{}]", b'{"event_log":"x"}', b'{"event_log":{}}', b"\x89PNG" + bytes(99),
        encode([{**log()[0], "imr": 4}]), encode([{**log()[0], "imr": True}]), encode([{**log()[0], "imr": -1}]),
        encode([{**log()[0], "event_type": 1 << 32}]), encode([{**log()[0], "event_type": 1.0}]),
        encode([{**log()[0], "digest": "00"}]), encode([{**log()[0], "digest": "zz" * 48}]),
        encode([{**log()[0], "event": "a\nb"}]), encode([{**log()[0], "event": "a" * 300}]),
        encode([{**log()[0], "event": None}]), encode([{**log()[0], "event_payload": "0"}]),
        encode([{**log()[0], "event_payload": 5}]), encode([log()[0]] * 4097), b"[" * 100_000,
        b'[{"imr":0,"imr":1,"event_type":4,"digest":"' + b"00" * 48 + b'"}]', b" " * ((1 << 20) + 1),
        encode([{**log()[0], "event": "\ud800"}]), encode({"quote": 1, "event_log": log()}),
    ],
)  # fmt: skip
def test_what_is_no_log_is_unreadable(data: bytes) -> None:
    """One check says so, and nothing else is judged."""
    result = judge(data, quote_of(encode(log())))
    assert result.verdict is Verdict.UNREADABLE
    assert failed(result) == {EVENT_LOG_FILES[0]}


def test_what_is_no_quote_is_unreadable() -> None:
    """With and without collateral."""
    good = encode(log())
    for collateral in (False, True):
        result = judge(good, b"no quote", collateral)
        assert "log_quote_format" in failed(result)
        assert result.verdict is Verdict.UNREADABLE
