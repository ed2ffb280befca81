"""Whole appraisals of TDs: nothing but the genuine bytes is accepted, at no time but their own."""

from dataclasses import replace
from functools import cache

import pytest
from confide_attestation.appraise import appraise
from confide_attestation.evidence import Endorsements, EvidenceBundle, encode_bundle, parse_bundle
from confide_attestation.policy import AppraisalPolicy
from confide_attestation.result import Verdict
from confide_attestation.tdx.abi import FIELDS, BodyType, parse_quote
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.scene import NONCE, NOW
from tests.fakes.tdx_scene import DIRECT, DSTACK, GCP, TdxScene, genuine
from tests.fuzz import fuzz_eventlog, fuzz_tdx

TARGETS = {**fuzz_tdx.TARGETS, **fuzz_eventlog.TARGETS}
PROFILES = (DIRECT, GCP, DSTACK)
Built = tuple[EvidenceBundle, Endorsements, AppraisalPolicy]


@cache
def built(profile: str) -> Built:
    return TdxScene(profile).build()


def verdict(evidence: EvidenceBundle, profile: str, now: int = NOW) -> Verdict:
    _, endorsements, policy = built(profile)
    return appraise(
        evidence, endorsements, policy, now_unix_s=now, floor=1, nonce=NONCE, allow_simulated=True
    ).verdict


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=80, deadline=None)
@given(data=st.binary(max_size=2048))
def test_arbitrary_bytes_raise_only_declared_errors(name: str, data: bytes) -> None:
    """The fuzz targets hold for whatever hypothesis thinks of."""
    TARGETS[name](data)


@settings(max_examples=300, deadline=None)
@given(
    part=st.sampled_from(("keyset", "manifest", "statement", "quote", "quote", "quote")),
    place=st.integers(0, 1 << 20),
    bit=st.integers(0, 7),
)
def test_any_flipped_bit_of_any_part_is_refused(part: str, place: int, bit: int) -> None:
    """Keyset, manifest, statement and quote: one bit, and there is no keyset."""
    evidence, _, _ = built(DIRECT)

    def flip(data: bytes) -> bytes:
        at = place % len(data)
        return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]

    if part == "quote":
        evidence = replace(evidence, cpu=replace(evidence.cpu, report=flip(evidence.cpu.report)))
    else:
        evidence = replace(evidence, **{part: flip(getattr(evidence, part))})
    assert verdict(evidence, DIRECT) is Verdict.REFUSED


@settings(max_examples=150, deadline=None)
@given(profile=st.sampled_from((GCP, DSTACK)), place=st.integers(0, 1 << 20), bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_log_shows_nothing_new(profile: str, place: int, bit: int) -> None:
    """Types and names of a CCEL's events, and the case of hexadecimal digits, are measured by nothing."""
    evidence, endorsements, policy = built(profile)
    (log,) = evidence.event_logs
    at = place % len(log.data)
    changed = log.data[:at] + bytes([log.data[at] ^ 1 << bit]) + log.data[at + 1 :]
    given = {"now_unix_s": NOW, "floor": 1, "nonce": NONCE, "allow_simulated": True}
    whole = appraise(evidence, endorsements, policy, **given)  # type: ignore[arg-type]
    evidence = replace(evidence, event_logs=(replace(log, data=changed),))
    result = appraise(evidence, endorsements, policy, **given)  # type: ignore[arg-type]
    if result.verdict is Verdict.ACCEPTED:
        assert result.claims.get("dstack") == whole.claims.get("dstack")
        assert set(result.claims["events"].values()) <= set(whole.claims["events"].values())


@settings(max_examples=60, deadline=None)
@given(profile=st.sampled_from(PROFILES), now=st.integers(-(1 << 66), 1 << 66))
def test_any_time_gives_a_verdict(profile: str, now: int) -> None:
    """No time of judgement raises; outside the statement's life nothing is accepted."""
    evidence, _, _ = built(profile)
    assert (verdict(evidence, profile, now) is Verdict.ACCEPTED) == (NOW - 70 <= now < NOW + 600)


@pytest.mark.parametrize("profile", PROFILES)
def test_bundle_survives_its_encoding(profile: str) -> None:
    """Encode, parse, encode again: the same bytes and the same verdict."""
    evidence, endorsements, _ = built(profile)
    data = encode_bundle(evidence, endorsements)
    again = parse_bundle(data)
    assert again == (evidence, endorsements)
    assert encode_bundle(*again) == data
    assert verdict(again[0], profile) is Verdict.ACCEPTED


@settings(max_examples=60, deadline=None)
@given(body_type=st.sampled_from((None, *BodyType)), name=st.sampled_from(sorted(FIELDS)), data=st.data())
def test_what_is_signed_is_what_is_read(body_type: BodyType | None, name: str, data: st.DataObject) -> None:
    """The simulated platform and the parser agree on every field's place, in both versions."""
    size = FIELDS[name][1]
    value = data.draw(st.binary(min_size=size, max_size=size))
    report_data = value if name == "report_data" else bytes(64)
    fields = {} if name == "report_data" else {name: value}
    quote = parse_quote(genuine().sign_quote(report_data, body_type=body_type, **fields))
    assert quote.field(name) == value
    assert quote.field("report_data") == report_data
