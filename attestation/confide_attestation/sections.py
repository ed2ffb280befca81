"""The parts of a result that people and EAR read one by one: which check belongs to which."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from confide_attestation.checks.ids import POLICY_CHECKS, CheckId
from confide_attestation.eventlog.ids import EventLogCheck
from confide_attestation.foreign.ids import ForeignCheck
from confide_attestation.nvidia.ids import NrasCheck, NvidiaCheck
from confide_attestation.result import Check
from confide_attestation.snp.ids import SnpCheck
from confide_attestation.tdx.ids import TdxCheck
from confide_attestation.vtpm.ids import VtpmCheck


class Topic(StrEnum):
    """What a check speaks of, by its name in EAR."""

    POLICY = "policy"
    SNP = "sev-snp"
    TDX = "tdx"
    VTPM = "vtpm"
    EVENT_LOG = "event_log"
    NVIDIA = "nvidia"
    NRAS = "nras"
    BINDING = "binding"
    FOREIGN = "provider_report"
    OTHER = "other"


TITLES = {
    Topic.POLICY: "The policy",
    Topic.SNP: "CPU: AMD SEV-SNP",
    Topic.TDX: "CPU: Intel TDX",
    Topic.VTPM: "Azure: HCL report and vTPM",
    Topic.EVENT_LOG: "Event log",
    Topic.NVIDIA: "NVIDIA devices",
    Topic.NRAS: "NVIDIA's Remote Attestation Service",
    Topic.BINDING: "From the hardware to the keyset",
    Topic.FOREIGN: "The provider's report",
    Topic.OTHER: "Checks",
}


@dataclass(frozen=True)
class Section:
    """Consecutive checks of one topic."""

    topic: Topic
    checks: tuple[Check, ...]

    @property
    def title(self) -> str:
        return TITLES[self.topic]


def sections(checks: Iterable[Check]) -> tuple[Section, ...]:
    """Split checks by what they speak of, in their order."""
    split: list[tuple[Topic, list[Check]]] = []
    for check in checks:
        topics = _TOPICS.get(check.id, (Topic.OTHER,))
        # A few ids are both vendors'; they stand among their own.
        if split and split[-1][0] in topics:
            split[-1][1].append(check)
        else:
            split.append((topics[0], [check]))
    return tuple(Section(topic, tuple(of_topic)) for topic, of_topic in split)


def _topics() -> dict[str, tuple[Topic, ...]]:
    table: Sequence[tuple[Topic, Iterable[StrEnum]]] = (
        (Topic.POLICY, POLICY_CHECKS),
        (Topic.BINDING, [check_id for check_id in CheckId if check_id not in POLICY_CHECKS]),
        (Topic.SNP, SnpCheck),
        (Topic.TDX, TdxCheck),
        (Topic.VTPM, VtpmCheck),
        (Topic.EVENT_LOG, EventLogCheck),
        (Topic.NVIDIA, NvidiaCheck),
        (Topic.NRAS, NrasCheck),
        (Topic.FOREIGN, ForeignCheck),
    )
    topics: dict[str, tuple[Topic, ...]] = {}
    for topic, ids in table:
        for check_id in ids:
            topics[check_id.value] = (*topics.get(check_id.value, ()), topic)
    return topics


_TOPICS = _topics()
