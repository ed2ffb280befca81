"""What several commands share: the hint at a clock that is wrong."""

import re
from dataclasses import replace

import pytest
from confide.cli.options import TIME_CHECKS, clock_hint
from confide_attestation.checks.ids import CheckId
from confide_attestation.nvidia.ids import NvidiaCheck
from confide_attestation.result import AttestationResult, Check, Outcome, Verdict
from confide_attestation.snp.ids import SnpCheck
from confide_attestation.tdx.ids import TdxCheck

OF_TIME = re.compile(r"_(expired|validity|not_yet_valid|age|too_old)$")
REFUSED = AttestationResult(Verdict.REFUSED, (), {}, False, None, None, 1_800_000_000, None)


def test_every_check_of_time_is_known_to_be_one() -> None:
    """By their names, whichever vendor's."""
    of_time = {each for ids in (CheckId, SnpCheck, TdxCheck, NvidiaCheck) for each in ids if OF_TIME.search(each)}
    assert of_time == set(TIME_CHECKS)


@pytest.mark.parametrize(
    ("failed", "hinted"),
    [
        (("keyset_validity", "tcb_info_expired", "rim_validity"), True),
        (("keyset_validity", "report_sig"), False),
        ((), False),
    ],
)
def test_the_clock_is_named_when_nothing_else_is_wrong(failed: tuple[str, ...], hinted: bool) -> None:
    """One other failure, and there is no hint."""
    checks = (Check("suite", Outcome.PASS, ""), *(Check(name, Outcome.FAIL, "") for name in failed))
    assert ("2027-01-15" in clock_hint(replace(REFUSED, checks=checks))) == hinted
