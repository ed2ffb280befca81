"""Event logs in whole appraisals, and by themselves under a policy: omitted, foreign, spliced, denied."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from confide_attestation.checks.ids import CheckId
from confide_attestation.eventlog.ids import CCEL_CHECKS, EVENT_LOG_CHECKS, EventLogCheck
from confide_attestation.eventlog.judge import judge_logs, verify_event_log
from confide_attestation.evidence import EventLog
from confide_attestation.part import Part
from confide_attestation.result import Outcome, Verdict
from confide_protocol.errors import PolicyError

from tests.fakes.scene import NOW
from tests.fakes.tdx_scene import (
    COMPOSE_HASH,
    DIRECT,
    DSTACK,
    GCP,
    TdxScene,
    ccel,
    dstack_events,
    genuine,
    genuine_log,
    runtime,
)

E, B = EventLogCheck, CheckId.EVENT_LOGS
OTHER = b"\7" * 32


def dstack(*more: dict[str, object], compose_hash: bytes = COMPOSE_HASH) -> EventLog:
    return EventLog("dstack", json.dumps([*dstack_events(compose_hash), *more]).encode())


def answer(scene: TdxScene, **fields: str) -> EventLog:
    """Return dstack's answer to GetQuote: the log with the quote and its report data."""
    quote = scene.build()[0].cpu.report
    tree = {"event_log": json.dumps(dstack_events()), "quote": quote.hex(), **fields}
    return EventLog("dstack", json.dumps(tree).encode())


LOG, CCEL = dstack(), EventLog("ccel", ccel())
SPLICED = EventLog("dstack", json.dumps([*dstack_events()[:3], *dstack_events(OTHER)[3:]]).encode())
RENAMED = EventLog("dstack", LOG.data.replace(b"app-id", b"app-io"))
TWICE = runtime("compose-hash", OTHER)
LATE = [*dstack_events()[:4], dstack_events()[5], dstack_events()[4]]
CASES: list[tuple[str, str, set[str], Callable[[TdxScene], object]]] = [
    ("omitted", DSTACK, {E.LOG_FORMAT, B}, lambda s: setattr(s, "logs", ())),
    ("omitted", GCP, {E.LOG_FORMAT, B}, lambda s: setattr(s, "logs", ())),
    ("twice", DSTACK, {E.LOG_FORMAT, B}, lambda s: setattr(s, "logs", (LOG, LOG))),
    ("both kinds", DSTACK, {B}, lambda s: setattr(s, "logs", (LOG, CCEL))),
    ("another kind", DSTACK, {E.LOG_FORMAT, B}, lambda s: setattr(s, "logs", (CCEL,))),
    ("kind lies", DSTACK, {E.LOG_FORMAT}, lambda s: setattr(s, "logs", (EventLog("dstack", CCEL.data),))),
    ("kind lies", GCP, {E.LOG_FORMAT}, lambda s: setattr(s, "logs", (EventLog("ccel", LOG.data),))),
    ("garbage", GCP, {E.LOG_FORMAT}, lambda s: setattr(s, "logs", (EventLog("ccel", b"garbage"),))),
    ("unasked", DIRECT, {B}, lambda s: setattr(s, "logs", (CCEL,))),
    ("foreign", GCP, {E.RTMR3_REPLAY}, lambda s: setattr(s, "logs", (EventLog("ccel", ccel(b"more")),))),
    ("event removed", DSTACK, {E.RTMR3_REPLAY}, lambda s: setattr(s, "logs", (dstack(TWICE | {"event": "a"}),))),
    ("renamed", DSTACK, {E.EVENT_DIGEST}, lambda s: setattr(s, "logs", (RENAMED,))),
    ("spliced", DSTACK, {E.RTMR3_REPLAY}, lambda s: setattr(s, "logs", (SPLICED,))),
    ("another app", DSTACK, {E.COMPOSE_HASH_DENIED}, lambda s: setattr(s, "log", dstack(compose_hash=OTHER))),
    ("named twice", DSTACK, {E.EVENT_DUPLICATE}, lambda s: setattr(s, "log", dstack(TWICE))),
    (
        "named by the app",
        DSTACK,
        {E.COMPOSE_HASH},
        lambda s: setattr(s, "log", EventLog("dstack", json.dumps(LATE).encode())),
    ),
    (
        "not named",
        DSTACK,
        {E.COMPOSE_HASH},
        lambda s: setattr(s, "log", EventLog("dstack", json.dumps(dstack_events()[:4]).encode())),
    ),
    (
        "with another quote",
        DSTACK,
        {E.LOG_QUOTE_MISMATCH},
        lambda s: setattr(s, "logs", (answer(TdxScene(DSTACK, quote={"report_data": OTHER * 2})),)),
    ),
    (
        "with other report data",
        DSTACK,
        {E.LOG_QUOTE_MISMATCH},
        lambda s: setattr(s, "logs", (answer(TdxScene(DSTACK), report_data="07" * 64),)),
    ),
]


@pytest.mark.parametrize(
    ("profile", "failed", "corrupt"), [pytest.param(p, f, c, id=f"{p}-{name}") for name, p, f, c in CASES]
)
def test_a_wrong_log_is_refused_by_name(
    profile: str, failed: set[str], corrupt: Callable[[TdxScene], object]
) -> None:
    """The hardware's evidence is genuine throughout; the log is what is wrong."""
    scene = TdxScene(profile)
    corrupt(scene)
    result = scene.appraise()
    found = {check.id for check in result.failed}
    # A spliced or changed event may break its digest as well as its register.
    assert failed <= found <= failed | {E.EVENT_DIGEST}
    assert (result.verdict, result.keyset) == (Verdict.REFUSED, None)


def test_the_answer_to_getquote_is_as_good_as_its_log() -> None:
    """With the same quote and report data beside it."""
    scene = TdxScene(DSTACK)
    scene.logs = (answer(scene),)
    assert scene.appraise().verdict is Verdict.ACCEPTED


def test_a_profile_lists_the_checks_of_its_own_log() -> None:
    """A CCEL has nothing of dstack's to be skipped; a bare TD has no log at all."""
    own = {profile: [c.id for c in TdxScene(profile).appraise().checks] for profile in (DIRECT, GCP, DSTACK)}
    logs = {p: [name for name in ids if name in set(EVENT_LOG_CHECKS)] for p, ids in own.items()}
    assert logs == {DIRECT: [], GCP: list(CCEL_CHECKS), DSTACK: list(EVENT_LOG_CHECKS)}


def test_a_denied_application_is_named() -> None:
    """The log is genuine, so the auditor sees which application ran."""
    scene = TdxScene(DSTACK)
    scene.log = dstack(compose_hash=OTHER)
    assert scene.appraise().claims["dstack"]["compose_hash"] == OTHER.hex()


def test_nothing_is_judged_by_a_quote_whose_signatures_do_not_hold() -> None:
    """No register is compared, no event shown; every check is listed all the same."""
    part = judge_logs((LOG,), Part((), holds=False), "dstack", None)
    outcomes = {check.id: check.outcome for check in part.checks}
    assert list(outcomes) == list(EVENT_LOG_CHECKS)
    assert outcomes[E.LOG_QUOTE_UNJUDGED] is Outcome.FAIL
    assert outcomes[E.RTMR3_REPLAY] is Outcome.SKIP
    assert (part.holds, dict(part.claims)) == (False, {})


@pytest.mark.parametrize("profile", [GCP, DSTACK])
def test_a_lone_log_is_judged_by_a_policy(profile: str) -> None:
    """Quote and log are accepted together; never with a keyset, nor without both switches."""
    evidence, endorsements, policy = TdxScene(profile).build()
    log = genuine_log(profile)
    assert log is not None
    assert endorsements.tdx is not None
    given: dict[str, Any] = {"collateral_json": endorsements.tdx.collateral, "policy": policy}
    result = verify_event_log(log.data, evidence.cpu.report, now_unix_s=NOW, allow_simulated=True, **given)
    assert (result.verdict, result.keyset, result.simulated) == (Verdict.ACCEPTED, None, True)
    assert result.policy_id == "test.tdx"
    result = verify_event_log(log.data, evidence.cpu.report, now_unix_s=NOW, **given)
    assert [check.id for check in result.failed] == [CheckId.SIMULATED]


def test_a_lone_log_is_refused_with_its_quote() -> None:
    """A quote that the policy refuses, an application that it denies, documents that are missing."""
    evidence, endorsements, policy = TdxScene(DSTACK).build()
    quote, log = evidence.cpu.report, LOG.data
    assert endorsements.tdx is not None
    given: dict[str, Any] = {"now_unix_s": NOW, "policy": policy, "allow_simulated": True}
    late = verify_event_log(log, quote, collateral_json=endorsements.tdx.collateral, **given | {"now_unix_s": 1})
    assert late.verdict is Verdict.REFUSED
    lacking = verify_event_log(log, quote, **given)
    assert "collateral_format" in {check.id for check in lacking.failed}
    scene = TdxScene(DSTACK, log=dstack(compose_hash=OTHER))
    quote = scene.build()[0].cpu.report
    denied = verify_event_log(
        dstack(compose_hash=OTHER).data, quote, collateral_json=endorsements.tdx.collateral, **given
    )
    assert [check.id for check in denied.failed] == [E.COMPOSE_HASH_DENIED]


def test_a_policy_without_logs_cannot_judge_one() -> None:
    """That is a fault of the policy, not of the log."""
    _, _, policy = TdxScene(DIRECT).build()
    with pytest.raises(PolicyError, match="knows no event log"):
        verify_event_log(LOG.data, b"", now_unix_s=NOW, policy=policy)


def test_without_a_policy_the_application_is_not_appraised() -> None:
    """Its check waits, and says so."""
    scene = TdxScene(DSTACK)
    quote = scene.build()[0].cpu.report
    result = verify_event_log(
        LOG.data, quote, now_unix_s=NOW, collateral_json=genuine().collateral(), root_der=genuine().root
    )
    assert result.verdict is Verdict.AUTHENTIC
    denied = next(check for check in result.checks if check.id == E.COMPOSE_HASH_DENIED)
    assert (denied.outcome, denied.detail) == (Outcome.SKIP, "no policy was given: NOT appraised")
