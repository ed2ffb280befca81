"""Every check of an event log by its id, in the order of every result."""

from enum import StrEnum

from confide_attestation.order import span


class EventLogCheck(StrEnum):
    """A check is named for what it refuses."""

    LOG_FORMAT = "log_format"
    LOG_QUOTE_FORMAT = "log_quote_format"
    LOG_QUOTE_UNJUDGED = "log_quote_unjudged"
    LOG_QUOTE_MISMATCH = "log_quote_mismatch"
    RTMRS_ZERO = "rtmrs_zero"
    RTMR0_REPLAY = "rtmr0_replay_mismatch"
    RTMR1_REPLAY = "rtmr1_replay_mismatch"
    RTMR2_REPLAY = "rtmr2_replay_mismatch"
    RTMR3_REPLAY = "rtmr3_replay_mismatch"
    EVENT_DIGEST = "event_digest_mismatch"
    EVENT_DUPLICATE = "event_duplicate"
    COMPOSE_HASH = "compose_hash"
    # The log's claims against a policy
    COMPOSE_HASH_DENIED = "compose_hash_denied"


EVENT_LOG_CHECKS = tuple(EventLogCheck)
REPLAY_CHECKS = (
    EventLogCheck.RTMR0_REPLAY,
    EventLogCheck.RTMR1_REPLAY,
    EventLogCheck.RTMR2_REPLAY,
    EventLogCheck.RTMR3_REPLAY,
)
# What only a log of dstack has.
DSTACK_CHECKS = span(EventLogCheck.EVENT_DUPLICATE, EventLogCheck.COMPOSE_HASH_DENIED)
CCEL_CHECKS = span(EventLogCheck.LOG_FORMAT, EventLogCheck.EVENT_DIGEST)
# What is judged without a policy.
EVENT_LOG_AUTHENTICITY_CHECKS = span(EventLogCheck.LOG_FORMAT, EventLogCheck.COMPOSE_HASH)
# A failure of one of these means that an input is not a file of its kind at all.
EVENT_LOG_FILES = (EventLogCheck.LOG_FORMAT, EventLogCheck.LOG_QUOTE_FORMAT)
