"""The TCG's binary log: its list of digests, its events, its end, and what of an event is recomputed."""

import hashlib
import struct

import pytest
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.eventlog.ccel import SPEC_ID, measured, parse_ccel
from confide_attestation.eventlog.judge import verify_event_log
from confide_attestation.eventlog.replay import Event
from confide_attestation.result import Verdict

from tests.unit.attestation.eventlog.support import NOW, failed, quote_of

SHA384 = (0x0C, 48)
END = b"\xff" * 64


def header(*algorithms: tuple[int, int], kind: int = 3, spec: bytes = SPEC_ID, register: int = 1) -> bytes:
    listed = b"".join(struct.pack("<HH", *each) for each in algorithms)
    data = spec + bytes(8) + len(algorithms).to_bytes(4, "little") + listed + b"\0"
    return struct.pack("<II20xI", register, kind, len(data)) + data


def event(register: int, kind: int, data: bytes, *digests: tuple[int, bytes]) -> bytes:
    digests = digests or ((0x0C, hashlib.sha384(data).digest()),)
    body = b"".join(struct.pack("<H", algorithm) + digest for algorithm, digest in digests)
    return struct.pack("<III", register, kind, len(digests)) + body + len(data).to_bytes(4, "little") + data


GOOD = header(SHA384) + event(1, 4, bytes(4)) + event(2, 0x80000007, b"Exit Boot Services") + END


def test_a_log_replays_with_and_without_its_area() -> None:
    """The 0xFF of the area after the last event are no events."""
    quote = quote_of(GOOD)
    for data in (GOOD, GOOD[:-64], GOOD[:-60]):
        result = verify_event_log(data, quote, now_unix_s=NOW)
        assert (failed(result), result.verdict) == (set(), Verdict.AUTHENTIC)
        assert result.claims["events"] == {"rtmr0[0]": "0x00000000", "rtmr1[0]": "Exit Boot Services"}


def test_events_without_action_are_not_measured() -> None:
    """They extend no register, and nothing of them is shown."""
    data = header(SHA384) + event(1, 4, bytes(4)) + event(2, 3, b"StartupLocality") + END
    log = parse_ccel(data)
    assert [each.kind for each in log.events] == [4]


def test_other_banks_are_passed_over() -> None:
    """A log may have SHA-256 beside SHA-384; only the latter is TDX's."""
    sha384 = hashlib.sha384(b"x").digest()
    data = header((0x0B, 32), SHA384) + event(1, 4, b"x", (0x0B, bytes(32)), (0x0C, sha384)) + END
    assert [each.digest for each in parse_ccel(data).events] == [sha384]


def test_text_with_another_digest_is_refused_where_the_digest_is_of_the_text() -> None:
    """A separator, variable, action or partition table is hashed whole."""
    forged = header(SHA384) + event(2, 0x80000007, b"Forged", (0x0C, bytes(48))) + END
    assert failed(verify_event_log(forged, quote_of(forged), now_unix_s=NOW)) == {"event_digest_mismatch"}


def test_grub_measures_without_prefix_and_end() -> None:
    """What is shown is what was hashed: a prefix is nobody's word."""
    digest = hashlib.sha384(b"linux /vmlinuz").digest()
    assert measured(Event(2, 0xD, digest, "", b"grub_cmd: linux /vmlinuz\0")) == b"linux /vmlinuz"
    assert measured(Event(2, 0xD, digest, "", b"evil_cmd: linux /vmlinuz\0")) is None
    assert measured(Event(2, 0x5, digest, "", b"grub_cmd: linux /vmlinuz\0")) is None


@pytest.mark.parametrize(
    "data",
    [
        GOOD[:100],
        GOOD[:-70],
        GOOD + b"\0",
        header(SHA384, kind=4) + END,
        header(SHA384, register=2) + END,
        header(SHA384, spec=b"Spec ID Event02\0") + END,
        header((0x0B, 32)) + END,
        header((0x0C, 47)) + END,
        header(SHA384, SHA384) + END,
        header(SHA384)[:-1] + END,
        header(SHA384) + event(0, 4, b"") + END,
        header(SHA384) + event(5, 4, b"") + END,
        header(SHA384) + event(1, 4, b"", (0x0B, bytes(32))) + END,
        header(SHA384) + event(1, 4, b"", (0x0C, bytes(48)), (0x0C, bytes(48))) + END,
        header((0x0B, 32), SHA384) + event(1, 4, b"", (0x0C, bytes(48)), (0x0C, bytes(48))) + END,
        header(SHA384) + event(1, 4, b"") * 4097 + END,
    ],
)
def test_what_is_no_ccel_is_malformed(data: bytes) -> None:
    """Lengths, registers, digests and the end are exact."""
    with pytest.raises(EvidenceMalformed) as fault:
        parse_ccel(data)
    assert fault.value.check == "log_format"
