"""Real event logs replay to all four registers of their quotes, and nothing that they do not measure is shown."""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from confide_attestation.checks.ledger import Ledger
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.eventlog.ids import EVENT_LOG_CHECKS, REPLAY_CHECKS, EventLogCheck
from confide_attestation.eventlog.judge import verify_event_log
from confide_attestation.eventlog.verify import parse_event_log, verify_replay
from confide_attestation.result import AttestationResult, Outcome, Verdict
from confide_attestation.tdx.abi import parse_quote

from tests.shared import shared_path

FOLDERS = {
    "ccel": ("go_tdx_guest_ccel_cos_113_tdx_quote_dat__20250626", "ccel_data.dat"),
    "dstack": ("dstack_quote_report_json__20260305", "getquote.json"),
}


@dataclass(frozen=True)
class Real:
    """One log, the quote beside it and Intel's documents."""

    log: bytes
    quote: bytes
    collateral: bytes
    expected: dict[str, Any]

    def judge(self, log: bytes | None = None, collateral: bool = False) -> AttestationResult:
        return verify_event_log(
            self.log if log is None else log,
            self.quote,
            now_unix_s=self.expected["now"],
            collateral_json=self.collateral if collateral else None,
        )

    @property
    def registers(self) -> tuple[bytes, ...]:
        return tuple(bytes.fromhex(register) for register in self.expected["rtmr"])


@cache
def load(name: str) -> Real:
    folder, log = FOLDERS[name]
    at = shared_path("evidence", "tdx", folder)
    expected = json.loads((at / "expected.json").read_text())
    return Real(
        (at / log).read_bytes(), (at / "quote.bin").read_bytes(), (at / "collateral.json").read_bytes(), expected
    )


def events(name: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(json.loads(load(name).log)["event_log"])
    return listed


@pytest.mark.parametrize("collateral", [False, True], ids=["unjudged", "judged"])
@pytest.mark.parametrize("name", FOLDERS)
def test_a_log_replays_to_all_registers_of_its_quote(name: str, collateral: bool) -> None:
    """Each register is replayed and is the recorded one; with collateral the quote is authentic too."""
    real = load(name)
    result = real.judge(collateral=collateral)
    outcomes = {check.id: check.outcome for check in result.checks}
    assert result.verdict is Verdict.AUTHENTIC
    assert all(outcomes[check_id] is Outcome.PASS for check_id in REPLAY_CHECKS)
    assert [result.claims["event_log"][f"rtmr{i}"] for i in range(4)] == real.expected["rtmr"]
    assert outcomes[EventLogCheck.LOG_QUOTE_UNJUDGED] is (Outcome.PASS if collateral else Outcome.SKIP)


def test_what_dstack_measured_is_shown() -> None:
    """The compose hash is there; the application's id is its beginning."""
    claims = load("dstack").judge().claims
    assert claims["dstack"]["compose_hash"] == events("dstack")[22]["event_payload"]
    assert str(claims["dstack"]["compose_hash"]).startswith(str(claims["dstack"]["app_id"]))
    assert claims["events"]["rtmr3[7]"].startswith("LIUM_MINER_HOTKEY: ")
    assert "ACPI DATA" not in claims["events"].values()


def test_the_command_line_that_grub_measured_is_shown() -> None:
    """Without the prefix, which is no part of what was measured."""
    shown = load("ccel").judge().claims["events"]
    assert str(shown["rtmr2[19]"]).startswith("/syslinux/vmlinuz.A init=")
    assert not any("kernel_cmdline" in str(text) for text in shown.values())
    assert "rtmr2[0]" not in shown


@pytest.mark.parametrize("name", FOLDERS)
def test_the_log_of_another_machine_is_refused(name: str) -> None:
    """Its registers are not those of the quote."""
    (other,) = set(FOLDERS) - {name}
    result = load(name).judge(load(other).log)
    assert {check.id for check in result.failed} >= {EventLogCheck.RTMR0_REPLAY, EventLogCheck.RTMR1_REPLAY}
    assert (result.verdict, dict(result.claims)) == (Verdict.REFUSED, {})


@pytest.mark.parametrize("number", range(28))
def test_every_event_of_dstack_counts(number: int) -> None:
    """Omitted, repeated, with another digest, and if of RTMR3 with another text: refused."""
    genuine = events("dstack")
    event = genuine[number]
    register = REPLAY_CHECKS[event["imr"]]
    for changed in (
        genuine[:number] + genuine[number + 1 :],
        [*genuine, event],
        [*genuine[:number], {**event, "digest": "00" * 48}, *genuine[number + 1 :]],
    ):
        assert register in {check.id for check in load("dstack").judge(json.dumps(changed).encode()).failed}
    for text in {"event": event["event"] + "x"}, {"event_payload": event["event_payload"] + "00"}:
        listed = [*genuine[:number], {**event, **text}, *genuine[number + 1 :]]
        result = load("dstack").judge(json.dumps(listed).encode())
        if event["imr"] == 3:
            assert EventLogCheck.EVENT_DIGEST in {check.id for check in result.failed}
        else:
            assert not set(result.claims.get("events", {}).items()) - set(
                load("dstack").judge().claims["events"].items()
            )


def test_a_changed_ccel_is_refused_or_shows_nothing_new() -> None:
    """A bit of every third byte is flipped: what is still accepted shows no text that was not measured."""
    real = load("ccel")
    shown = set(real.judge().claims["events"].items())
    size = len(real.log.rstrip(b"\xff"))
    refused = accepted = 0
    for at in range(0, size, 3):
        changed = bytearray(real.log[: size + 16])
        changed[at] ^= 1 << at % 8
        try:
            log = parse_event_log(bytes(changed))
        except EvidenceMalformed:
            refused += 1
            continue
        ledger = Ledger()
        verify_replay(ledger, log, real.registers)
        if ledger.failed(EVENT_LOG_CHECKS):
            refused += 1
        else:
            accepted += 1
            assert set(real.judge(bytes(changed)).claims["events"].items()) <= shown
    assert refused > accepted


def test_azures_registers_are_told_apart() -> None:
    """A log that fits zero registers is sent to the vTPM."""
    quote = shared_path("evidence", "azure", "tdx_live", "td_quote.bin").read_bytes()
    assert not any(parse_quote(quote).field("rtmr0"))
    result = verify_event_log(load("dstack").log, quote, now_unix_s=0)
    zero = next(check for check in result.failed if check.id == EventLogCheck.RTMRS_ZERO)
    assert "confide verify azure" in zero.detail
