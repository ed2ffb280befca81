"""What an accepted result is, and the two kinds of hardware that never mix."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from confide_attestation.appraise import appraise
from confide_attestation.checks.ids import CheckId
from confide_attestation.evidence import SnpEndorsements
from confide_attestation.policy import load_policy
from confide_attestation.result import Outcome, Verdict
from confide_attestation.snp.ids import SnpCheck
from confide_attestation.snp.judge import verify_snp
from confide_protocol.statement import coalesce_nonces

from tests.fakes.scene import NONCE, NOW, Scene

SIMULATED_ROOT = '[simulated]\namd_ark_sha256 = "'


@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("product", ["Genoa", "Turin"])
def test_genuine_form_is_accepted(product: str, version: int) -> None:
    """Every report version of every accepted product passes, and yields the keyset."""
    scene = Scene(amd={"product": product}, report={"version": version})
    result = scene.appraise()
    assert result.failed == ()
    assert result.verdict is Verdict.ACCEPTED
    assert result.simulated
    assert result.keyset is not None
    assert result.keyset.keyset.digest.hex() == result.claims["keyset"]["digest"]
    assert result.claims["cpu0"]["product"] == product


def test_vlek_is_accepted_where_the_policy_says_so() -> None:
    """A cloud's key passes all checks, the chip's id among them."""
    scene = Scene(amd={"signer": "VLEK"})
    scene.edit_policy('signers = ["VCEK"]', 'signers = ["VLEK"]')
    assert scene.appraise().verdict is Verdict.ACCEPTED


def test_milan_is_accepted_with_a_reason() -> None:
    """The deny-list gives way to a written reason only."""
    scene = Scene(amd={"product": "Milan"})
    levels = 'min_tcb = { bl = 0, tee = 0, snp = 0, ucode = 0 }, rises = "never"'
    rule = f'{{ accepted_because = "for this test only", {levels} }}'
    scene.edit_policy('milan = "refused"', f"milan = {rule}")
    assert scene.appraise().verdict is Verdict.ACCEPTED


def test_every_skip_of_an_accepted_result_is_a_waiver_with_its_reason() -> None:
    """SKIP in an accepted result means that the policy waives the check, and says why."""
    skipped = [check for check in Scene().appraise().checks if check.outcome is Outcome.SKIP]
    assert skipped
    assert all(check.detail.startswith("waived by the policy: ") for check in skipped)


def test_freshness_can_be_waived() -> None:
    """With freshness waived no nonce is needed; the result says so."""
    scene = Scene(arguments={"nonce": None}, statement={"nonce": None, "epoch": b"e" * 32})
    scene.edit_policy('freshness = "nonce"', 'freshness = { waived = "for this test only" }')
    result = scene.appraise()
    assert result.verdict is Verdict.ACCEPTED
    assert {c.id: c.outcome for c in result.checks}[CheckId.NONCE] is Outcome.SKIP


def test_callers_that_share_a_quote_each_find_their_nonce() -> None:
    """Three coalesced nonces are answered by one statement, each along its own path."""
    nonces = [bytes([n]) * 32 for n in range(3)]
    root, paths = coalesce_nonces(nonces)
    for nonce, path in zip(nonces, paths, strict=True):
        scene = Scene(statement={"nonce": root}, bundle={"nonce_path": path}, arguments={"nonce": nonce})
        assert scene.appraise().verdict is Verdict.ACCEPTED


def test_valid_until_is_the_earliest_limit() -> None:
    """Statement, keyset, certificates, list and policy each can be what ends a result first."""

    def until(scene: Scene) -> int:
        keyset = scene.appraise().keyset
        assert keyset is not None
        return keyset.valid_until_unix_s - NOW

    far = {"not_after_unix_s": NOW + 80_000}
    assert until(Scene()) == 600
    assert until(Scene(statement=far)) == 3600
    assert until(Scene(statement=far, keyset=far, policy_fields={"not_after_unix_s": NOW + 500})) == 500
    assert until(Scene(statement=far, keyset=far, amd={"not_after_unix_s": NOW + 400})) == 400
    crl = Scene(statement=far, keyset=far)
    crl.endorse = lambda amd: {"crl": amd.crl(issued_unix_s=NOW - 5, next_update_unix_s=NOW + 300)}
    assert until(crl) == 300


def listed(scene: Scene) -> None:
    scene.edit_policy(
        'crl = { waived = "a simulated root publishes no revocation list" }', "crl = { max_age_s = 3600 }"
    )
    scene.endorse = lambda amd: {"crl": amd.crl(issued_unix_s=NOW - 3540, next_update_unix_s=NOW + 86_400)}


def rising(scene: Scene, ucode: int = 255) -> None:
    at = f"{datetime.fromtimestamp(NOW + 60, UTC):%Y-%m-%dT%H:%M:%SZ}"
    later = f"{{ at = {at}, min_tcb = {{ bl = 0, tee = 0, snp = 0, ucode = {ucode} }} }}"
    scene.edit_policy('ucode = 0 }, rises = "never" }\nturin', f"ucode = 0 }}, rises = {later} }}\nturin")


def dated(scene: Scene) -> None:
    scene.edit_policy('freshness = "nonce"', "freshness = { epoch_max_age_s = 100 }")
    scene.statement = {**scene.statement, "nonce": None, "epoch": b"e" * 32}
    scene.arguments |= {"nonce": None, "epochs": {b"e" * 32: NOW - 40}}


@pytest.mark.parametrize(
    ("limit", "check_id"),
    [(listed, SnpCheck.CRL_AGE), (rising, SnpCheck.MIN_TCB), (dated, CheckId.NONCE)],
    ids=["list", "rise", "epoch"],
)
def test_a_result_ends_when_the_policy_would_refuse(limit: Callable[[Scene], None], check_id: str) -> None:
    """A list that gets too old, a least TCB that rises above the report's, an epoch: then it fails as well."""
    far = {"not_after_unix_s": NOW + 80_000}
    scene = Scene(statement=far, keyset=far)
    limit(scene)
    result = scene.appraise()
    assert result.keyset is not None
    assert result.keyset.valid_until_unix_s == NOW + 60
    scene.arguments["now_unix_s"] = NOW + 61
    assert [check.id for check in scene.appraise().failed] == [check_id]


def test_a_rise_that_the_report_meets_is_no_end() -> None:
    """Nor is one that has come."""
    scene = Scene()
    rising(scene, ucode=0)
    for now in (NOW, NOW + 60):
        scene.arguments["now_unix_s"] = now
        result = scene.appraise()
        assert result.keyset is not None
        assert result.keyset.valid_until_unix_s == NOW + 600


def test_a_statement_with_a_nonce_answers_no_epoch() -> None:
    """Not even one that the caller names by nothing."""
    scene = Scene(arguments={"nonce": NONCE, "epochs": {b"": NOW}})
    scene.edit_policy('freshness = "nonce"', "freshness = { epoch_max_age_s = 100 }")
    assert [check.id for check in scene.appraise().failed] == [CheckId.NONCE]


def test_result_digest_follows_from_the_checks() -> None:
    """The same judgement has the same digest; another time of judgement has another."""
    evidence, endorsements, policy = Scene().build()

    def digest(now: int) -> bytes:
        result = appraise(
            evidence, endorsements, policy, now_unix_s=now, floor=1, nonce=NONCE, allow_simulated=True
        )
        assert result.keyset is not None
        return result.keyset.result_digest

    assert digest(NOW) == digest(NOW)
    assert digest(NOW) != digest(NOW + 1)


def test_simulated_evidence_is_refused_under_a_hardware_policy() -> None:
    """A hardware policy trusts AMD's roots alone, whatever the caller allows."""
    evidence, endorsements, policy = Scene().build()
    text = Scene().policy_text(endorsements.snp, evidence.manifest)
    start = text.index(SIMULATED_ROOT)
    text = text[:start] + text[text.index("[session]") :]
    hardware = load_policy(text.replace('kind = "simulated"', 'kind = "hardware"').encode(), "policy.toml")
    result = appraise(evidence, endorsements, hardware, now_unix_s=NOW, floor=1, nonce=NONCE, allow_simulated=True)
    failed = {check.id for check in result.failed}
    assert {SnpCheck.ARK_PIN, CheckId.KEYSET_KIND, CheckId.PLATFORM} <= failed
    assert result.verdict is Verdict.REFUSED
    assert not result.claims
    assert policy.digest != hardware.digest


def test_lone_report_is_authentic_without_and_accepted_with_a_policy_and_never_yields_a_keyset() -> None:
    """`verify_snp` judges the report alone; without a policy only AMD's keys, of AMD's size, count."""
    evidence, endorsements, policy = Scene().build()
    assert endorsements.snp is not None
    report = evidence.cpu.report
    judged = verify_snp(report, endorsements.snp, now_unix_s=NOW, policy=policy, allow_simulated=True)
    assert (judged.verdict, judged.keyset) == (Verdict.ACCEPTED, None)
    refused = verify_snp(report, endorsements.snp, now_unix_s=NOW, policy=policy)
    assert [check.id for check in refused.failed] == [CheckId.SIMULATED]
    bare = verify_snp(report, endorsements.snp, now_unix_s=NOW)
    assert [check.id for check in bare.failed] == [
        SnpCheck.ARK_PIN,
        SnpCheck.ARK_SIG,
        SnpCheck.ASK_SIG,
        SnpCheck.VEK_SIG,
    ]


def test_unreadable_is_not_refused() -> None:
    """A file of another kind is told apart from a report that fails."""
    evidence, endorsements, _ = Scene().build()
    snp = endorsements.snp
    assert snp is not None
    for report, given in (
        (b"short", snp),
        (evidence.cpu.report, SnpEndorsements(vek=b"no")),
        (evidence.cpu.report, replace(snp, crl=b"")),
    ):
        assert verify_snp(report, given, now_unix_s=NOW).verdict is Verdict.UNREADABLE


@pytest.mark.parametrize(("at", "verdict"), [(NOW + 1, Verdict.ACCEPTED), (NOW, Verdict.REFUSED)])
def test_a_least_tcb_rises_on_its_day(at: int, verdict: Verdict) -> None:
    """Levels that a policy set beforehand count from their time on, and from no earlier."""
    scene = Scene()
    when = f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
    higher = f"rises = {{ at = {when}, min_tcb = {{ bl = 255, tee = 0, snp = 0, ucode = 0 }} }} }}\nturin"
    scene.edit_policy('rises = "never" }\nturin', higher)
    result = scene.appraise()
    assert result.verdict is verdict
    assert {check.id for check in result.failed} == (set() if verdict is Verdict.ACCEPTED else {SnpCheck.MIN_TCB})
