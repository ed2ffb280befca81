"""Readers of evidence raise only what they declare; nothing but the genuine bytes is accepted."""

from dataclasses import replace

import pytest
from confide_attestation.appraise import appraise
from confide_attestation.evidence import Endorsements, encode_bundle, parse_bundle
from confide_attestation.result import Verdict
from confide_attestation.simulated.amd import SimulatedAmd
from confide_attestation.snp.abi import parse_report
from confide_attestation.snp.judge import verify_snp
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.scene import NONCE, NOW, Scene, shared_keys
from tests.fuzz.fuzz_attestation import PARTS, TARGETS, genuine

MUTATIONS = st.tuples(st.sampled_from(PARTS[:-1]), st.integers(0, 1 << 20), st.integers(0, 7))


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=80, deadline=None)
@given(data=st.binary(max_size=2048))
def test_arbitrary_bytes_raise_only_declared_errors(name: str, data: bytes) -> None:
    """The fuzz targets hold for whatever hypothesis thinks of."""
    TARGETS[name](data)


@settings(max_examples=200, deadline=None)
@given(mutation=MUTATIONS)
def test_any_flipped_bit_of_any_part_is_refused(mutation: tuple[str, int, int]) -> None:
    """Keyset, manifest, statement, report and certificates: one bit, and there is no keyset."""
    part, place, bit = mutation
    evidence, endorsements, policy = genuine()
    assert endorsements.snp is not None

    def flip(data: bytes) -> bytes:
        at = place % len(data)
        return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]

    if part == "report":
        evidence = replace(evidence, cpu=replace(evidence.cpu, report=flip(evidence.cpu.report)))
    elif part in ("keyset", "manifest", "statement"):
        evidence = replace(evidence, **{part: flip(getattr(evidence, part))})
    else:
        snp = replace(endorsements.snp, **{part: flip(getattr(endorsements.snp, part))})
        endorsements = Endorsements(snp=snp)
    result = appraise(evidence, endorsements, policy, now_unix_s=NOW, floor=1, nonce=NONCE, allow_simulated=True)
    assert result.verdict is Verdict.REFUSED
    assert result.keyset is None


@settings(max_examples=60, deadline=None)
@given(
    version=st.integers(2, 5),
    guest_svn=st.integers(0, 2**32 - 1),
    report_data=st.binary(min_size=64, max_size=64),
    host_data=st.binary(min_size=32, max_size=32),
)
def test_what_is_signed_is_what_is_read(version: int, guest_svn: int, report_data: bytes, host_data: bytes) -> None:
    """The simulated device and the parser agree on every field's place."""
    amd = SimulatedAmd.make(NOW, keys=shared_keys())
    parsed = parse_report(amd.sign_report(report_data, version=version, guest_svn=guest_svn, host_data=host_data))
    assert (parsed.version, parsed.guest_svn) == (version, guest_svn)
    assert (parsed.report_data, parsed.host_data) == (report_data, host_data)
    assert not any(parsed.reserved)


@settings(max_examples=60, deadline=None)
@given(now=st.integers(0, 1 << 40))
def test_any_time_gives_a_verdict(now: int) -> None:
    """No time of judgement raises; outside the certificates' life nothing is accepted."""
    evidence, endorsements, policy = genuine()
    assert endorsements.snp is not None
    verify_snp(evidence.cpu.report, endorsements.snp, now_unix_s=now)
    result = appraise(evidence, endorsements, policy, now_unix_s=now, floor=1, nonce=NONCE, allow_simulated=True)
    assert (result.verdict is Verdict.ACCEPTED) == (NOW - 70 <= now < NOW + 600)


def test_bundle_survives_its_encoding() -> None:
    """Encode, parse, encode again: the same bytes and the same verdict."""
    evidence, endorsements, policy = Scene().build()
    data = encode_bundle(evidence, endorsements)
    again = parse_bundle(data)
    assert again == (evidence, endorsements)
    assert encode_bundle(*again) == data
    judged = appraise(*again, policy, now_unix_s=NOW, floor=1, nonce=NONCE, allow_simulated=True)
    assert judged.verdict is Verdict.ACCEPTED
