"""Real TDX evidence under policies written from its own values: accepted at its time, refused by name otherwise."""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from confide_attestation.eventlog.judge import verify_event_log
from confide_attestation.policy import AppraisalPolicy, load_policy
from confide_attestation.result import AttestationResult, Outcome, Verdict
from confide_attestation.tdx import library
from confide_attestation.tdx.abi import parse_quote
from confide_attestation.tdx.ids import TDX_POLICY_CHECKS
from confide_attestation.tdx.judge import verify_tdx

from tests.fakes.tdx_policy import tdx_policy
from tests.shared import shared_path

ACCEPTED = (
    "dcap_qvl_near_quote_hex_txt__20250917",
    "dcap_qvl_tdx_quote__20250704",
    "dstack_quote_report_json__20260305",
    "go_tdx_guest_ccel_cos_113_tdx_quote_dat__20250626",
    "go_tdx_guest_quote_v5_sample_dat__20260305",
)
DCAP, DSTACK, GCP = ACCEPTED[1:4]
OUT_OF_DATE = "automata_quotev4_hex__20250626"
REFUSED = {
    "attestation_rs_tdx_quote_4_dat__20230628": "td_debug",
    "automata_alibaba_quote_5_dat__20260305": "service_td",
    "azure_trustee_az_tdx_vtpm_td_quote_bin__20250626": "sept_ve_disable",
    OUT_OF_DATE: "tcb_status_denied",
}
GRACE = 'tcb_grace = { statuses = ["%s"], advisories = [%s], until = %s, because = "the host is being updated" }'
ADVISORIES = '"INTEL-SA-00960", "INTEL-SA-00982", "INTEL-SA-00986"'
MONTH_S = 31 * 86_400


@dataclass(frozen=True)
class Real:
    """One folder of recorded evidence."""

    quote: bytes
    collateral: bytes
    expected: dict[str, Any]

    @property
    def pins(self) -> dict[str, str]:
        parsed = parse_quote(self.quote)
        pck = library.read_pck(parsed.data)
        assert pck is not None
        names = ("mr_seam", "mr_td", "mr_config_id", "xfam", *(f"rtmr{at}" for at in range(4)))
        return {"ppid": pck.ppid.hex(), **{name: parsed.field(name).hex() for name in names}}

    def policy(self, *edits: tuple[str, str], profile: str = "tdx/direct", **fields: str) -> AppraisalPolicy:
        """Write the policy that this evidence meets: its values, Intel's documents of its time."""
        text = tdx_policy(profile, self.pins, **fields)
        for old, new in (
            ("min_tcb_evaluation_number = 18", "min_tcb_evaluation_number = 15"),
            ("max_collateral_age_s = 86400", f"max_collateral_age_s = {MONTH_S}"),
            ("max_root_crl_age_s = 172800", f"max_root_crl_age_s = {12 * MONTH_S}"),
            *edits,
        ):
            assert old in text
            text = text.replace(old, new)
        return load_policy(text.encode(), "policy.toml")

    def judge(self, policy: AppraisalPolicy, *, now: int | None = None) -> AttestationResult:
        at = self.expected["now"] if now is None else now
        return verify_tdx(self.quote, self.collateral, now_unix_s=at, policy=policy)


@cache
def load(name: str) -> Real:
    folder = shared_path("evidence", "tdx", name)
    files = [(folder / file).read_bytes() for file in ("quote.bin", "collateral.json")]
    return Real(*files, json.loads((folder / "expected.json").read_text()))


def failed(result: AttestationResult) -> list[str]:
    return [check.id for check in result.failed]


def graced(
    status: str = "OutOfDate", advisories: str = ADVISORIES, until: str = "2025-07-01T00:00:00Z"
) -> tuple[str, str]:
    return ('tcb_grace = "refused"', GRACE % (status, advisories, until))


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_under_its_own_policy(name: str) -> None:
    """Every check passes; the result names the policy and yields no keyset."""
    real = load(name)
    policy = real.policy()
    result = real.judge(policy)
    assert failed(result) == []
    assert (result.verdict, result.policy_digest, result.keyset) == (Verdict.ACCEPTED, policy.digest, None)
    assert all(check.outcome is Outcome.PASS for check in result.checks)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_under_its_own_policy(name: str) -> None:
    """What no policy can allow, and a status without a grace, is what fails: the rest is as it pins."""
    real = load(name)
    result = real.judge(real.policy())
    assert (failed(result), result.verdict) == ([REFUSED[name]], Verdict.REFUSED)
    outcomes = {check.id: check.outcome for check in result.checks}
    judged = [check for check in TDX_POLICY_CHECKS if outcomes[check] is not Outcome.SKIP]
    assert set(TDX_POLICY_CHECKS) - set(judged) == {"tcb_grace", "advisory_denied"}


def test_out_of_date_is_accepted_under_a_dated_grace() -> None:
    """Status, every advisory, and the day; the reason is in the result."""
    real = load(OUT_OF_DATE)
    result = real.judge(real.policy(graced()))
    assert result.verdict is Verdict.ACCEPTED
    (grace,) = (check for check in result.checks if check.id == "tcb_grace")
    assert grace.detail == "OutOfDate is accepted until 2025-07-01: the host is being updated"


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (graced(until="2025-06-26T22:12:02Z"), "tcb_grace"),
        (graced("OutOfDateConfigurationNeeded"), "tcb_status_denied"),
        (graced(advisories='"INTEL-SA-00960", "INTEL-SA-00982"'), "advisory_denied"),
    ],
)
def test_a_grace_that_lacks_one_thing_is_none(edit: tuple[str, str], reason: str) -> None:
    """Ended to the second, of another status, or without one of three advisories."""
    real = load(OUT_OF_DATE)
    result = real.judge(real.policy(edit))
    assert (failed(result), result.verdict) == ([reason], Verdict.REFUSED)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (("min_tcb_evaluation_number = 15", "min_tcb_evaluation_number = 18"), "eval_number_too_low"),
        ((f"max_collateral_age_s = {MONTH_S}", "max_collateral_age_s = 864000"), "collateral_too_old"),
        ((f"max_root_crl_age_s = {12 * MONTH_S}", "max_root_crl_age_s = 864000"), "collateral_too_old"),
        (("allow_dynamic_platform = true", "allow_dynamic_platform = false"), "platform_configuration"),
        (("allow_cached_keys = true", "allow_cached_keys = false"), "platform_configuration"),
        (("allow_smt = true", "allow_smt = false"), "platform_configuration"),
        (('xfam = ["e702060000000000"]', 'xfam = ["e700060000000000", "e718060000000000"]'), "xfam"),
    ],
)
def test_each_demand_refuses_a_real_quote(edit: tuple[str, str], reason: str) -> None:
    """Everything else holds, so that one check fails."""
    real = load(DCAP)
    assert failed(real.judge(real.policy(edit))) == [reason]


def test_another_machine_is_refused_for_all_that_differs() -> None:
    """Not the first difference, every one."""
    one, other = load(DCAP), load(DSTACK)
    result = one.judge(other.policy())
    differ = ["ppid_not_allowed", "mr_seam", "mr_td", "rtmr0", "rtmr1", "rtmr2", "rtmr3"]
    assert failed(result) == differ


def test_a_policy_of_simulated_hardware_trusts_no_real_quote() -> None:
    """Neither with another root nor with none, whatever the caller allows."""
    real = load(DCAP)
    for root in ("11" * 32, "none"):
        policy = real.policy(root_sha256=root)
        result = verify_tdx(
            real.quote, real.collateral, now_unix_s=real.expected["now"], policy=policy, allow_simulated=True
        )
        assert failed(result) == ["root_untrusted"]
        assert (result.simulated, dict(result.claims)) == (True, {})


def test_the_documents_end_with_their_time() -> None:
    """Two months later it is their time that fails."""
    real = load(DCAP)
    late = set(failed(real.judge(real.policy(), now=real.expected["now"] + 2 * MONTH_S)))
    assert {"tcb_info_expired", "qe_identity_expired"} <= late
    assert not late & {"mr_td", "quote_signature"}


def test_google_s_log_is_accepted_with_its_quote() -> None:
    """MRTD, RTMR0 to RTMR3 pinned, and the CCEL makes them."""
    real, log = load(GCP), shared_path("evidence", "tdx", GCP, "ccel_data.dat").read_bytes()
    policy = real.policy(profile="tdx/gcp")
    result = verify_event_log(
        log, real.quote, now_unix_s=real.expected["now"], collateral_json=real.collateral, policy=policy
    )
    assert (failed(result), result.verdict) == ([], Verdict.ACCEPTED)
    assert result.policy_id == policy.id


@pytest.mark.parametrize("pinned", [True, False])
def test_dstack_s_application_is_pinned(pinned: bool) -> None:
    """The compose hash that the log names is accepted, or another is and this one is refused."""
    real, log = load(DSTACK), shared_path("evidence", "tdx", DSTACK, "getquote.json").read_bytes()
    events = json.loads(json.loads(log)["event_log"])
    (compose_hash,) = (event["event_payload"] for event in events if event["event"] == "compose-hash")
    policy = real.policy(profile="tdx/dstack", compose_hash=compose_hash if pinned else "11" * 32)
    result = verify_event_log(
        log, real.quote, now_unix_s=real.expected["now"], collateral_json=real.collateral, policy=policy
    )
    assert failed(result) == ([] if pinned else ["compose_hash_denied"])
    assert result.verdict is (Verdict.ACCEPTED if pinned else Verdict.REFUSED)
    assert result.claims["dstack"]["compose_hash"] == compose_hash
