"""What a policy can say of TDX: everything is there, nothing is empty, and what covers the machine is pinned."""

import pytest
from confide_attestation.policy import AppraisalPolicy, load_policy
from confide_attestation.policy_types import Waived
from confide_attestation.tdx.policy import Grace
from confide_protocol.errors import PolicyError

from tests.fakes.tdx_policy import ZEROS, tdx_policy

PINS = {
    "ppid": "11" * 16,
    "mr_seam": "22" * 48,
    "mr_td": "33" * 48,
    "xfam": "e702060000000000",
    **dict.fromkeys(("rtmr0", "rtmr1", "rtmr2", "rtmr3", "mr_config_id"), ZEROS),
}
REGISTER = f'rtmr3 = ["{ZEROS}"]'
WAIVER = '{ waived = "nothing is measured into it" }'
GRACE = (
    'tcb_grace = { statuses = ["OutOfDate"], advisories = ["INTEL-SA-00960"], '
    'until = 2027-01-01T00:00:00Z, because = "being updated" }'
)


def load(
    profile: str = "tdx/direct", old: str = "", new: str = "", compose_hash: str | None = None
) -> AppraisalPolicy:
    text = tdx_policy(profile, PINS, compose_hash=compose_hash)
    assert old in text
    return load_policy(text.replace(old, new).encode(), "policy.toml")


def graced(old: str = "OutOfDate", new: str = "OutOfDate") -> AppraisalPolicy:
    return load("tdx/direct", 'tcb_grace = "refused"', GRACE.replace(old, new))


def test_each_profile_loads() -> None:
    """Bare, on Google's cloud, under dstack; each names its machine."""
    names = [load(profile).platform_name for profile in ("tdx/direct", "tdx/gcp")]
    dstack = load("tdx/dstack", compose_hash="44" * 32)
    assert [*names, dstack.platform_name] == ["tdx", "tdx", "dstack"]
    assert isinstance(dstack.tdx.rtmr3, Waived)
    assert dstack.tdx.grace is None


def test_a_grace_has_statuses_advisories_a_day_and_a_reason() -> None:
    """Read as written."""
    policy = graced()
    assert isinstance(policy.tdx.grace, Grace)
    assert (policy.tdx.grace.until_unix_s, policy.tdx.grace.because) == (1_798_761_600, "being updated")


@pytest.mark.parametrize("status", ["UpToDate", "Revoked", "TDRelaunchAdvised", "Unknown"])
def test_no_grace_lists_what_needs_none_or_deserves_none(status: str) -> None:
    """A TD that has to be launched anew is launched anew; Revoked is refused by every policy."""
    with pytest.raises(PolicyError, match="statuses"):
        graced(new=status)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('statuses = ["OutOfDate"]', "statuses = []", "statuses"),
        ('advisories = ["INTEL-SA-00960"]', "advisories = []", "advisories"),
        ("INTEL-SA-00960", "CVE-2026-22696", "advisories"),
        ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00", "until"),
        ('because = "being updated"', 'because = "so"', "because"),
        (', because = "being updated"', "", "because"),
    ],
)
def test_a_grace_is_whole(old: str, new: str, field: str) -> None:
    """Nothing in it is empty or left out."""
    with pytest.raises(PolicyError, match=field):
        graced(old, new)


@pytest.mark.parametrize("profile", ["tdx/direct", "tdx/gcp"])
def test_what_covers_the_machine_is_not_waived(profile: str) -> None:
    """RTMR3 neither, where no event log speaks for it."""
    with pytest.raises(PolicyError, match="rtmr3 cannot be waived"):
        load(profile, REGISTER, f"rtmr3 = {WAIVER}")
    for register in ("mr_td", "rtmr0", "rtmr1", "rtmr2"):
        value = PINS[register]
        with pytest.raises(PolicyError, match=f"tdx.{register}"):
            load(profile, f'{register} = ["{value}"]', f"{register} = {WAIVER}")


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('xfam = ["e702060000000000"]', "xfam = []", "xfam"),
        ('xfam = ["e702060000000000"]', 'xfam = ["e7"]', "xfam"),
        ("min_tcb_evaluation_number = 18", "min_tcb_evaluation_number = 0", "min_tcb_evaluation_number"),
        ("max_collateral_age_s = 86400", "max_collateral_age_s = 60", "max_collateral_age_s"),
        ("max_root_crl_age_s = 172800\n", "", "max_root_crl_age_s"),
        ("allow_smt = true\n", "", "platform_configuration.allow_smt"),
        ("allow_lass = false\n", "allow_lass = false\nallow_debug = true\n", "td_attributes.allow_debug"),
        (f'ppids = ["{PINS["ppid"]}"]', f'ppids = ["{PINS["ppid"]}00"]', "ppids"),
    ],
)
def test_a_fault_names_its_field(old: str, new: str, field: str) -> None:
    """Empty, too short, out of range, left out, unknown."""
    with pytest.raises(PolicyError, match=field):
        load("tdx/direct", old, new)


def test_dstack_names_its_applications() -> None:
    """Without them the profile covers no application."""
    with pytest.raises(PolicyError, match="dstack"):
        load("tdx/dstack")
    with pytest.raises(PolicyError, match="compose_hashes"):
        load("tdx/dstack", f'compose_hashes = ["{"44" * 32}"]', "compose_hashes = []", "44" * 32)
