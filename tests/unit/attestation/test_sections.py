"""Every check of every verifier has its topic, and ids that two vendors share stand among their own."""

from confide_attestation.checks.ids import CheckId
from confide_attestation.eventlog.ids import EventLogCheck
from confide_attestation.foreign.ids import ForeignCheck
from confide_attestation.nvidia.ids import NrasCheck, NvidiaCheck
from confide_attestation.result import Check, Outcome
from confide_attestation.sections import Topic, sections
from confide_attestation.snp.ids import SnpCheck
from confide_attestation.tdx.ids import TdxCheck
from confide_attestation.vtpm.ids import VtpmCheck


def checks(*ids: str) -> list[Check]:
    return [Check(each, Outcome.PASS, "") for each in ids]


def test_each_list_of_checks_is_one_section() -> None:
    """Also the lists of AMD and Intel, which share a few ids."""
    for ids, topic in (
        (SnpCheck, Topic.SNP),
        (TdxCheck, Topic.TDX),
        (VtpmCheck, Topic.VTPM),
        (EventLogCheck, Topic.EVENT_LOG),
        (NvidiaCheck, Topic.NVIDIA),
        (NrasCheck, Topic.NRAS),
        (ForeignCheck, Topic.FOREIGN),
    ):
        (section,) = sections(checks(*ids))
        assert (section.topic, len(section.checks)) == (topic, len(ids))
    assert [each.topic for each in sections(checks(*CheckId))] == [Topic.POLICY, Topic.BINDING]


def test_nothing_is_lost_or_moved() -> None:
    """Sections keep every check in its order, those of no known list too."""
    ids = [*CheckId, *TdxCheck, "air_parse", *EventLogCheck, *NvidiaCheck]
    split = sections(checks(*ids))
    assert [check.id for section in split for check in section.checks] == ids
    assert all(section.title for section in split)
