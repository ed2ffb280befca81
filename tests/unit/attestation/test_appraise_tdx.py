"""Whole appraisals of TDs: each thing that a policy demands bites by its own name, signed afresh."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest
from confide_attestation.appraise import appraise
from confide_attestation.checks.ids import CheckId
from confide_attestation.evidence import CpuEvidence, CpuKind
from confide_attestation.policy import load_policy
from confide_attestation.result import Outcome, Verdict
from confide_attestation.simulated.intel import PLATFORM_CA, ROOT_CA, TREE, SimulatedIntel, level
from confide_attestation.tdx.abi import BodyType
from confide_attestation.tdx.ids import TDX_POLICY_CHECKS, TdxCheck

from tests.fakes.scene import NONCE, NOW, Scene
from tests.fakes.tdx_scene import DIRECT, DSTACK, GCP, TdxScene, genuine

PROFILES = (DIRECT, GCP, DSTACK)
DAY_S = 86_400
Corruption = Callable[[TdxScene], object]
CASES: list[tuple[str, StrEnum, Corruption]] = []
GRACE = (
    'tcb_grace = { statuses = ["OutOfDate"], advisories = ["INTEL-SA-00960"], until = %s, '
    'because = "the new firmware is being rolled out" }'
)
NEXT_YEAR, LAST_YEAR = "2028-01-01T00:00:00Z", "2026-01-01T00:00:00Z"
ADVISORY = "INTEL-SA-00960"
OLD_QE = {
    "tcb": {"isvsvn": 4},
    "tcbDate": "2024-11-13T00:00:00Z",
    "tcbStatus": "OutOfDate",
    "advisoryIDs": ["INTEL-SA-01111"],
}


def case(check_id: StrEnum, name: str, corrupt: Corruption) -> None:
    CASES.append((f"{check_id}-{name}", check_id, corrupt))


def device(**fields: object) -> Corruption:
    return lambda scene: scene.intel.update(fields)


def quoted(**fields: object) -> Corruption:
    return lambda scene: scene.quote.update(fields)


def attributes(bit: int) -> Corruption:
    return quoted(td_attributes=(1 << bit | 1 << 28).to_bytes(8, "little"))


def edited(old: str, new: str) -> Corruption:
    return lambda scene: scene.edit_policy(old, new)


def signed(make: Callable[[SimulatedIntel], bytes]) -> Corruption:
    def corrupt(scene: TdxScene) -> None:
        scene.collateral = make

    return corrupt


def tcb(**fields: object) -> Corruption:
    return signed(lambda intel: intel.collateral(tcb_info=intel.tcb_info(**fields)))


def both(*corruptions: Corruption) -> Corruption:
    return lambda scene: [corrupt(scene) for corrupt in corruptions]


def graced(
    status: str = "OutOfDate", *, until: str = NEXT_YEAR, advisories: tuple[str, ...] = (ADVISORY,)
) -> Corruption:
    levels: list[TREE] = [level(status, advisories=advisories)]
    return both(tcb(tcbLevels=levels), edited('tcb_grace = "refused"', GRACE % until))


def day(ago_s: int) -> str:
    return f"{datetime.fromtimestamp(NOW - ago_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def old_list(part: str, name: str, age_s: int) -> Corruption:
    def make(intel: SimulatedIntel) -> bytes:
        signer = intel.keys.root if name == ROOT_CA else intel.keys.ca
        crl = intel.crl(name, signer, window=(NOW - age_s, NOW + DAY_S))
        parts: dict[str, Any] = {part: crl.hex()}
        return intel.collateral(**parts)

    return signed(make)


T = TdxCheck
case(T.EVAL_NUMBER_TOO_LOW, "tcb-info", tcb(tcbEvaluationDataNumber=17))
case(
    T.EVAL_NUMBER_TOO_LOW,
    "qe-identity",
    signed(lambda intel: intel.collateral(qe_identity=intel.qe_identity(tcbEvaluationDataNumber=17))),
)
case(T.COLLATERAL_TOO_OLD, "tcb-info", tcb(issueDate=day(DAY_S + 1)))
case(
    T.COLLATERAL_TOO_OLD,
    "qe-identity",
    signed(lambda intel: intel.collateral(qe_identity=intel.qe_identity(issueDate=day(DAY_S + 1)))),
)
case(T.COLLATERAL_TOO_OLD, "pck-list", old_list("pck_crl", PLATFORM_CA, DAY_S + 1))
case(T.COLLATERAL_TOO_OLD, "root-list", old_list("root_ca_crl", ROOT_CA, 2 * DAY_S + 1))
case(T.TCB_STATUS_DENIED, "not-listed", graced("ConfigurationNeeded"))
case(T.TCB_STATUS_DENIED, "refused", tcb(tcbLevels=[level("SWHardeningNeeded")]))
case(T.TCB_GRACE, "ended", graced(until=LAST_YEAR))
case(T.TCB_GRACE, "ends-now", graced(until="2027-01-15T08:00:00Z"))
case(T.ADVISORY_DENIED, "one-more", graced(advisories=(ADVISORY, "INTEL-SA-01036")))
case(
    T.ADVISORY_DENIED,
    "of-the-quoting-enclave",
    both(
        edited('tcb_grace = "refused"', GRACE % NEXT_YEAR),
        signed(lambda intel: intel.collateral(qe_identity=intel.qe_identity(tcbLevels=[OLD_QE]))),
    ),
)
case(T.TCB_REVOKED, "no-grace-helps", graced("Revoked"))
case(T.PPID_NOT_ALLOWED, "another-machine", device(ppid=b"\7" * 16))
for key in ("smt", "dynamic_platform", "cached_keys"):
    refuse = edited(f"allow_{key} = true", f"allow_{key} = false")
    case(T.PLATFORM_CONFIGURATION, key, refuse)
    case(T.PLATFORM_CONFIGURATION, f"{key}-unknown", both(refuse, device(configuration=None)))
case(T.MR_SEAM, "another", quoted(mr_seam=b"\7" * 48))
case(T.MR_TD, "another", quoted(mr_td=b"\7" * 48))
for number in range(4):
    case(TdxCheck(f"rtmr{number}"), "another", quoted(**{f"rtmr{number}": b"\7" * 48}))
for name in ("mr_config_id", "mr_owner", "mr_owner_config"):
    case(TdxCheck(name), "another", quoted(**{name: b"\7" * 48}))
case(T.XFAM, "another", quoted(xfam=(0x600E7).to_bytes(8, "little")))
case(T.TD_PKS, "on", attributes(30))
case(T.TD_KEY_LOCKER, "on", attributes(31))
case(T.TD_PERFMON, "on", attributes(63))
case(T.TD_LASS, "on", attributes(27))
# What every policy refuses
case(T.TD_DEBUG, "on", attributes(0))
case(T.TD_MIGRATABLE, "on", attributes(29))
case(T.SEPT_VE_DISABLE, "off", quoted(td_attributes=bytes(8)))
case(T.SERVICE_TD, "bound", quoted(body_type=BodyType.TD15, mr_service_td=b"\7" * 48))
case(T.QUOTE_SIGNATURE, "flipped", lambda s: setattr(s, "after_signing", lambda q: q[:200] + b"\7" + q[201:]))
case(T.COLLATERAL_FORMAT, "absent", signed(lambda intel: None))  # type: ignore[arg-type, return-value]
case(T.ROOT_UNTRUSTED, "none-trusted", lambda s: s.pins.update(root="none"))
case(T.ROOT_UNTRUSTED, "another", lambda s: s.pins.update(root="11" * 32))
case(CheckId.REPORT_DATA, "another-statement", quoted(report_data=b"\7" * 64))
case(CheckId.NONCE, "another-caller", lambda s: s.arguments.update(nonce=b"x" * 32))
case(CheckId.PLATFORM, "another", lambda s: s.manifest.update(platform="simulated-sev-snp"))


@pytest.mark.parametrize("profile", PROFILES)
def test_a_genuine_td_is_accepted(profile: str) -> None:
    """All checks pass, but for what the policy waives with its reason."""
    result = TdxScene(profile).appraise()
    assert result.failed == ()
    assert result.verdict is Verdict.ACCEPTED
    assert result.keyset is not None
    skipped = {check.id for check in result.checks if check.outcome is Outcome.SKIP}
    assert skipped == ({"rtmr3"} if profile == DSTACK else set())
    assert result.claims["cpu0"]["type"] == "tdx"


@pytest.mark.parametrize(("check_id", "corrupt"), [pytest.param(c, f, id=name) for name, c, f in CASES])
def test_a_corruption_fails_exactly_its_check(check_id: StrEnum, corrupt: Corruption) -> None:
    """One thing is wrong, and that one check says so."""
    scene = TdxScene()
    corrupt(scene)
    result = scene.appraise()
    assert [check.id for check in result.failed] == [check_id]
    assert (result.verdict, result.keyset) == (Verdict.REFUSED, None)


def test_every_demand_of_a_policy_has_a_corruption() -> None:
    """No check of the policy half goes untested."""
    assert set(TDX_POLICY_CHECKS) <= {check_id for _, check_id, _ in CASES}


def test_another_status_is_accepted_for_a_while_and_says_why() -> None:
    """Status, advisories and date are listed; the transcript has the policy's reason; the result ends with it."""
    scene = TdxScene()
    graced(until="2027-01-15T08:05:00Z")(scene)
    result = scene.appraise()
    assert result.verdict is Verdict.ACCEPTED
    details = {check.id: check.detail for check in result.checks}
    assert details["tcb_grace"] == "OutOfDate is accepted until 2027-01-15: the new firmware is being rolled out"
    assert ADVISORY in details["advisory_denied"]
    assert "OutOfDate" in details["tcb_status_denied"]
    assert result.claims["cpu0"]["tcb_status"] == "OutOfDate"
    assert result.keyset is not None
    assert result.keyset.valid_until_unix_s == NOW + 300


def test_a_grace_does_not_touch_what_is_up_to_date() -> None:
    """A machine that needs no grace is not bound by its date, nor by its advisories."""
    scene = TdxScene()
    scene.edit_policy('tcb_grace = "refused"', GRACE % LAST_YEAR)
    result = scene.appraise()
    assert result.verdict is Verdict.ACCEPTED
    assert result.keyset is not None
    assert result.keyset.valid_until_unix_s == NOW + 600


def test_a_result_ends_with_the_documents_greatest_age() -> None:
    """What will be too old in an hour is good for an hour."""
    far = {"not_after_unix_s": NOW + 80_000}
    scene = TdxScene(statement=far, keyset=far)
    scene.edit_policy("max_collateral_age_s = 86400", "max_collateral_age_s = 7200")
    result = scene.appraise()
    assert result.keyset is not None
    assert result.keyset.valid_until_unix_s == NOW + 3600


def test_a_result_ends_with_the_first_document() -> None:
    """The list of Intel's CA ends before everything else."""
    far = {"not_after_unix_s": NOW + 80_000}
    scene = TdxScene(statement=far, keyset=far)
    scene.collateral = lambda intel: intel.collateral(
        pck_crl=intel.crl(PLATFORM_CA, intel.keys.ca, window=(NOW - 60, NOW + 500)).hex()
    )
    result = scene.appraise()
    assert result.keyset is not None
    assert result.keyset.valid_until_unix_s == NOW + 500


def test_freshness_can_be_an_epoch() -> None:
    """A public value that the caller knows, not older than the policy says."""
    epoch = b"e" * 32
    for age_s, verdict in ((600, Verdict.ACCEPTED), (601, Verdict.REFUSED), (-1, Verdict.REFUSED)):
        scene = TdxScene(statement={"nonce": None, "epoch": epoch})
        scene.edit_policy('freshness = "nonce"', "freshness = { epoch_max_age_s = 600 }")
        scene.arguments = {"nonce": None, "epochs": {epoch: NOW - age_s}}
        result = scene.appraise()
        assert result.verdict is verdict
        assert result.failed == () or [check.id for check in result.failed] == [CheckId.NONCE]


def test_simulated_evidence_is_refused_under_a_hardware_policy() -> None:
    """Intel's root alone is trusted, whatever the caller allows."""
    evidence, endorsements, _ = TdxScene().build()
    text = TdxScene().policy_text(evidence.manifest, genuine().root)
    start, end = text.index("[simulated]"), text.index("[session]")
    hardware = text[:start].replace('kind = "simulated"', 'kind = "hardware"') + text[end:]
    policy = load_policy(hardware.encode(), "policy.toml")
    result = appraise(evidence, endorsements, policy, now_unix_s=NOW, floor=1, nonce=NONCE, allow_simulated=True)
    failed = {check.id for check in result.failed}
    assert {TdxCheck.ROOT_UNTRUSTED, CheckId.KEYSET_KIND, CheckId.PLATFORM} <= failed
    assert (result.keyset, dict(result.claims)) == (None, {})


def test_missing_documents_say_where_they_are() -> None:
    """The URLs of the platform, and the command."""
    scene = TdxScene()
    scene.collateral = lambda intel: None
    (check,) = scene.appraise().failed
    assert "tcb?fmspc=90C06F000000" in check.detail
    assert "confide endorsements fetch tdx" in check.detail


def test_evidence_of_another_kind_is_refused() -> None:
    """A SEV-SNP bundle under a TDX policy, and a TDX bundle under one of SEV-SNP: nothing of either is claimed."""
    tdx, snp = TdxScene(), Scene()
    for own, other in ((tdx, snp), (snp, tdx)):
        evidence, endorsements, _ = other.build()
        _, _, policy = own.build()
        result = appraise(
            evidence, endorsements, policy, now_unix_s=NOW, floor=1, nonce=NONCE, allow_simulated=True
        )
        assert CheckId.CPU_KIND in {check.id for check in result.failed}
        assert (result.verdict, result.keyset) == (Verdict.REFUSED, None)
        assert "cpu0" not in result.claims


def test_a_kind_that_lies_is_refused() -> None:
    """An SNP report that calls itself a TDX quote is no quote."""
    evidence, endorsements, policy = TdxScene().build()
    report = Scene().build()[0].cpu.report
    lying = replace(evidence, cpu=CpuEvidence(CpuKind.TDX, report))
    result = appraise(lying, endorsements, policy, now_unix_s=NOW, floor=1, nonce=NONCE, allow_simulated=True)
    assert [check.id for check in result.failed] == [TdxCheck.TEE_TYPE]
    assert json.dumps(dict(result.claims)) == "{}"
