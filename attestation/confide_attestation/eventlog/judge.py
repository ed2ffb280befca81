"""Judge an event log for the composite appraisal."""

from collections.abc import Sequence

from confide_attestation.eventlog.policy import DstackPolicy
from confide_attestation.evidence import EventLog
from confide_attestation.part import Part


def judge_logs(logs: Sequence[EventLog], quote: Part, kind: str, policy: DstackPolicy | None) -> Part:
    """Judge the one log of `kind` by the registers of a quote; never raises, whatever the bytes."""
    return Part((), holds=False)
