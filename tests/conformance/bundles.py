"""Whole bundles that a policy accepts: every part changed, left out, told twice, moved, or of another bundle."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from confide_attestation.appraise import appraise
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import (
    Endorsements,
    EventLog,
    EvidenceBundle,
    encode_bundle,
    parse_bundle,
)
from confide_attestation.policy import AppraisalPolicy
from confide_protocol.statement import NoncePath

from tests.conformance import FLIPS_A_FILE, Case, Field, Files, Judge, Judged, Layout, Mutation, checks, judges
from tests.conformance.parts import part_of
from tests.conformance.spans import fill
from tests.fakes.azure_scene import SNP, TDX, AzureScene
from tests.fakes.gpu_scene import GpuScene, eight_and_four
from tests.fakes.scene import NONCE, NOW
from tests.fakes.tdx_scene import DIRECT, DSTACK, GCP, TdxScene, ccel, firmware, runtime

Whole = tuple[EvidenceBundle, Endorsements]
Scenes = Callable[..., AzureScene | GpuScene | TdxScene]
_FORM = checks("bundle_format")
# What names a part's kind, and the framing around it.
_WORDS = _FORM | checks("cpu_kind", "arch", "gpu_evidence", "event_logs", "device_chain_ocsp", "rim_ocsp")
_BOUND = checks("report_data")


def cases() -> Iterator[Case]:
    yield _case("snp_gpu", GpuScene)
    for profile in (DIRECT, GCP, DSTACK):
        yield _case(profile.replace("/", "_"), partial(TdxScene, profile=profile))
    for profile in (SNP, TDX):
        yield _case(profile.replace("/", "_"), partial(AzureScene, profile=profile))
    # Twelve devices take a while: their fields are those of one device, which the first case has.
    yield _case("snp_8_gpus_4_switches", partial(GpuScene, devices=eight_and_four()), max_flips=600)


def _case(name: str, scene: Scenes, *, max_flips: int = FLIPS_A_FILE) -> Case:
    evidence, endorsements, policy = scene().build()
    data = encode_bundle(evidence, endorsements)
    own = (evidence, endorsements)
    other = scene(keyset={"not_before_unix_s": NOW - 20}).build()[:2]
    more = [*_spliced(own, other), *_missing(own), *_older(scene), *_logs(own), *_devices(own)]
    more += [
        Mutation("cut", "bundle", {"bundle": data[:-1]}, _FORM),
        Mutation("longer", "bundle", {"bundle": data + b"\0"}, _FORM),
        Mutation("nonce", "another", {}, checks("nonce"), nonce=bytes(32)),
        Mutation("clock", "when the statement has ended", {}, checks("statement_expired"), now_unix_s=NOW + 600),
        Mutation("clock", "in 2099", {}, checks("keyset_validity", "policy_expired"), now_unix_s=4_070_908_800),
    ]
    layouts = {"bundle": _layout(data, own, whole=max_flips == FLIPS_A_FILE)}
    return Case(
        name=f"bundle/simulated_{name}",
        kind="bundle",
        files={"bundle": data},
        layouts=layouts,
        now_unix_s=NOW,
        judge=_judge(policy),
        nonce=NONCE,
        real=False,
        platform=name,
        more=more,
        max_flips=max_flips,
    )


def _judge(policy: AppraisalPolicy) -> Judge:
    def judge(files: Files, now: int, nonce: bytes) -> Judged:
        try:
            evidence, endorsements = parse_bundle(files["bundle"])
        except EvidenceMalformed:
            return Judged(True, _FORM, {})
        return judges.of_result(
            appraise(evidence, endorsements, policy, now_unix_s=now, floor=1, nonce=nonce, allow_simulated=True)
        )

    return judge


def _mutated(kind: str, name: str, whole: Whole, named: frozenset[str]) -> Mutation:
    return Mutation(kind, name, {"bundle": encode_bundle(*whole)}, named)


def _spliced(own: Whole, other: Whole) -> Iterator[Mutation]:
    """Take parts of another bundle that the same policy accepts: one at a time, then several that fit together."""
    (evidence, endorsements), (theirs, _) = own, other
    for names, named in (
        (("keyset",), checks("keyset_digest")),
        (("statement",), _BOUND),
        (("cpu",), _BOUND),
        (("gpus",), checks("gpu_evidence")),
        (("keyset", "statement"), _BOUND),
        (("statement", "cpu"), checks("keyset_digest")),
        (("statement", "cpu", "gpus"), checks("keyset_digest")),
        (("keyset", "gpus"), checks("keyset_digest", "gpu_evidence")),
        (("keyset", "statement", "cpu"), checks("gpu_evidence")),
    ):
        parts = {name: getattr(theirs, name) for name in names}
        changed = replace(evidence, **parts)
        if changed not in (evidence, theirs):
            yield _mutated("splice", " and ".join(names), (changed, endorsements), named)
    # A step of the path more: another leaf of the tree.
    path = NoncePath((*evidence.nonce_path.steps, (True, bytes(32))))
    yield _mutated("splice", "nonce_path", (replace(evidence, nonce_path=path), endorsements), checks("nonce"))


def _missing(own: Whole) -> Iterator[Mutation]:
    evidence, endorsements = own
    for name, named in (
        ("keyset", checks("keyset_format")),
        ("manifest", checks("manifest_format")),
        ("statement", checks("statement_format")),
    ):
        yield _mutated("omit", name, (replace(evidence, **{name: b""}), endorsements), named)
    report = replace(evidence.cpu, report=b"")
    named = checks("report_size", "quote_size", "hcl_size")
    yield _mutated("omit", "cpu", (replace(evidence, cpu=report), endorsements), named)
    if evidence.cpu.vtpm is not None:
        bare = replace(evidence.cpu, vtpm=None)
        yield _mutated("omit", "vtpm", (replace(evidence, cpu=bare), endorsements), checks("tpm_magic"))
    for vendor, named in (
        ("snp", checks("vek_format")),
        ("tdx", checks("collateral_format")),
        ("nvidia", checks("driver_rim_missing", "firmware_rim_missing")),
    ):
        if getattr(endorsements, vendor) is not None:
            yield _mutated(
                "omit", f"endorsements.{vendor}", (evidence, replace(endorsements, **{vendor: None})), named
            )
    if endorsements.nvidia is not None:
        unjudged = replace(endorsements.nvidia, ocsp=None)
        named = checks("device_chain_ocsp", "rim_ocsp", "device_chain_revoked")
        for name, answers in (("ocsp", ()), ("ocsp (unjudged)", None)):
            fewer = replace(unjudged, ocsp=answers)
            yield _mutated("omit", f"endorsements.{name}", (evidence, replace(endorsements, nvidia=fewer)), named)


def _older(scene: Scenes) -> Iterator[Mutation]:
    """Parts that were good once, signed by the same hardware."""
    for name, fields, named in (
        ("statement", {"statement": {"not_after_unix_s": NOW - 1}}, checks("statement_expired")),
        ("nonce", {"statement": {"nonce": b"\1" * 32}}, checks("nonce")),
        (
            "keyset",
            {"keyset": {"not_before_unix_s": NOW - 7200, "not_after_unix_s": NOW - 1}},
            checks("keyset_validity"),
        ),
        ("manifest", {"manifest": {"release": "confide 0.0.9"}}, checks("manifest")),
    ):
        yield _mutated("older", name, scene(**fields).build()[:2], named)


def _logs(own: Whole) -> Iterator[Mutation]:
    evidence, endorsements = own
    logs = evidence.event_logs
    listed = checks("event_logs")

    def given(*shown: EventLog) -> Whole:
        return replace(evidence, event_logs=shown), endorsements

    if not logs:
        yield _mutated("repeat", "an event log that the profile knows not", given(EventLog("ccel", ccel())), listed)
        return
    (log,) = logs
    yield _mutated("omit", "event log", given(), listed)
    yield _mutated("repeat", "event log", given(log, log), listed)
    yield _mutated(
        "swap", "event log's kind", given(EventLog("dstack" if log.kind == "ccel" else "ccel", log.data)), listed
    )
    replayed = checks("rtmr3_replay_mismatch")
    if log.kind == "ccel":
        yield _mutated("swap", "event log", given(EventLog("ccel", ccel(b"more"))), replayed)
        return
    events = [firmware(imr, bytes((imr, 0, 0, 0))) for imr in range(3)]
    events += [runtime("compose-hash", b"\1" * 32), runtime("system-ready", b"")]
    yield _mutated("swap", "event log", given(EventLog("dstack", json.dumps(events).encode())), replayed)


def _devices(own: Whole) -> Iterator[Mutation]:
    evidence, endorsements = own
    gpus = evidence.gpus
    named = checks("gpu_evidence")

    def given(shown: Sequence[object]) -> Whole:
        return replace(evidence, gpus=tuple(shown)), endorsements  # type: ignore[arg-type]

    for number in range(len(gpus)):
        yield _mutated("omit", f"device {number}", given([*gpus[:number], *gpus[number + 1 :]]), named)
        yield _mutated("repeat", f"device {number}", given([*gpus, gpus[number]]), named)
        if number:
            moved = list(gpus)
            moved[number - 1], moved[number] = moved[number], moved[number - 1]
            yield _mutated("reorder", f"device {number}", given(moved), named)
            twice = [*gpus[:number], gpus[number - 1], *gpus[number + 1 :]]
            yield _mutated("swap", f"device {number} for its neighbour", given(twice), named)


def _layout(data: bytes, own: Whole, *, whole: bool) -> Layout:
    """Lay a bundle out by where its parts lie; each has its own fields, or is one field (`whole`: the former)."""
    evidence, endorsements = own
    path = b"".join(sibling for _, sibling in evidence.nonce_path.steps)
    fields = [
        *_run(data, "keyset", evidence.keyset, checks("keyset_format", "keyset_digest")),
        *_run(data, "manifest", evidence.manifest, checks("manifest_format", "manifest_digest")),
        *_run(data, "statement", evidence.statement, checks("statement_format", "report_data", "tpm_nonce")),
    ]
    assert not path
    for name, kind, role, part in _parts(evidence, endorsements):
        at = data.index(part)
        if not any(each.start <= at < each.end for each in fields):
            own_fields = part_of(kind, role).layout(part)
            if not whole:
                named = frozenset[str]().union(*(each.checks for each in own_fields))
                own_fields = (Field("whole", 0, len(part), named),)
            fields += [each.moved(at, f"{name}.") for each in own_fields]
    return fill(fields, len(data), Field("form", 0, 0, _WORDS))


def _run(data: bytes, name: str, part: bytes, named: frozenset[str]) -> list[Field]:
    at = data.index(part)
    return [Field(name, at, at + len(part), named)]


def _parts(evidence: EvidenceBundle, endorsements: Endorsements) -> Iterator[tuple[str, str, str, bytes]]:
    cpu, vtpm = evidence.cpu, evidence.cpu.vtpm
    if vtpm is None:
        yield ("cpu", "snp", "report", cpu.report) if endorsements.snp else ("cpu", "tdx", "quote", cpu.report)
    else:
        yield "cpu", "azure", "hcl", cpu.report
        yield "vtpm.quote", "azure", "tpm_quote", vtpm.quote
        yield "vtpm.signature", "azure", "tpm_signature", vtpm.signature
        yield "vtpm.pcrs", "azure", "pcrs", vtpm.pcrs
        if vtpm.td_quote:
            yield "vtpm.td_quote", "azure", "td_quote", vtpm.td_quote
    for log in evidence.event_logs:
        yield "log", "eventlog", "log", log.data
    for gpu in evidence.gpus:
        yield "gpu.report", "nvidia", "report", gpu.report
        yield "gpu.chain", "nvidia", "chain", gpu.certificate_chain
    if endorsements.snp is not None:
        for role in ("vek", "ask", "ark", "crl"):
            if (given := getattr(endorsements.snp, role)) is not None:
                yield role, "snp", role, given
    if endorsements.tdx is not None:
        yield "collateral", "tdx", "collateral", endorsements.tdx.collateral
    if endorsements.nvidia is not None:
        for rim in endorsements.nvidia.rims:
            yield "rim", "nvidia", "rim", rim
        for answer in endorsements.nvidia.ocsp or ():
            yield "ocsp", "nvidia", "ocsp", answer.der
