"""From the report to the keyset: statement, freshness, keyset, manifest, and what must stand beside them."""

from dataclasses import dataclass

from confide_protocol import labels
from confide_protocol.errors import ProtocolError
from confide_protocol.keyconfig import parse_key_configs
from confide_protocol.keyset import Keyset, Manifest, parse_keyset, parse_manifest
from confide_protocol.statement import ReportDataStatement, parse_statement

from confide_attestation.checks.ids import CheckId
from confide_attestation.checks.ledger import Ledger
from confide_attestation.evidence import EvidenceBundle
from confide_attestation.policy import SUITES, AppraisalPolicy, Waived


@dataclass(frozen=True)
class Binding:
    """The statements as parsed; each is None if its bytes are not what they should be."""

    statement: ReportDataStatement | None
    keyset: Keyset | None
    manifest: Manifest | None


def check_binding(
    ledger: Ledger,
    evidence: EvidenceBundle,
    report_data: bytes | None,
    policy: AppraisalPolicy,
    *,
    now_unix_s: int,
    nonce: bytes | None,
) -> Binding:
    """Judge everything between the CPU's report data and the keyset.

    `report_data` is None unless the report's signatures hold. Does not check: the report itself.
    """
    statement = _check_statement(ledger, evidence, report_data, policy, now_unix_s=now_unix_s, nonce=nonce)
    keyset = _check_keyset(ledger, evidence, statement, policy, now_unix_s)
    manifest = _check_manifest(ledger, evidence, keyset, policy)
    _check_gpus(ledger, evidence, statement, policy)
    ledger.expect(
        CheckId.EVENT_LOGS,
        not evidence.event_logs,
        f"the profile {policy.platform.profile} knows none, and there is none",
        f"the profile {policy.platform.profile} knows no event log, and the evidence has one",
    )
    return Binding(statement, keyset, manifest)


def _check_statement(
    ledger: Ledger,
    evidence: EvidenceBundle,
    report_data: bytes | None,
    policy: AppraisalPolicy,
    *,
    now_unix_s: int,
    nonce: bytes | None,
) -> ReportDataStatement | None:
    try:
        statement = parse_statement(evidence.statement)
    except ProtocolError as fault:
        ledger.fail(CheckId.STATEMENT_FORMAT, str(fault))
        return None
    ledger.expect(CheckId.STATEMENT_FORMAT, True, "a report-data statement", "")
    if report_data is not None:
        ledger.expect(
            CheckId.REPORT_DATA,
            report_data == statement.report_data,
            "the report carries SHA-512 of the statement",
            "the report's data is not SHA-512 of the statement",
        )
    ledger.expect(
        CheckId.STATEMENT_EXPIRED,
        now_unix_s < statement.not_after_unix_s,
        f"good for {statement.not_after_unix_s - now_unix_s} s more",
        "the statement has expired; fetch fresh evidence, and compare clocks",
    )
    if isinstance(policy.freshness, Waived):
        ledger.waive(CheckId.NONCE, policy.freshness.waived)
    else:
        ledger.expect(
            CheckId.NONCE,
            nonce is not None
            and statement.nonce is not None
            and evidence.nonce_path.root(nonce) == statement.nonce,
            "the statement answers our nonce",
            "no nonce was asked for, and the policy demands one"
            if nonce is None
            else "the statement does not answer our nonce",
        )
    return statement


def _check_keyset(
    ledger: Ledger,
    evidence: EvidenceBundle,
    statement: ReportDataStatement | None,
    policy: AppraisalPolicy,
    now_unix_s: int,
) -> Keyset | None:
    try:
        keyset = parse_keyset(evidence.keyset)
    except ProtocolError as fault:
        ledger.fail(CheckId.KEYSET_FORMAT, str(fault))
        return None
    ledger.expect(CheckId.KEYSET_FORMAT, True, "a keyset statement", "")
    if statement is not None:
        ledger.expect(
            CheckId.KEYSET_DIGEST,
            keyset.digest == statement.keyset_digest,
            f"the statement names this keyset, {keyset.digest.hex()[:16]}…",
            "the statement names another keyset",
        )
    ledger.expect(
        CheckId.KEYSET_VALIDITY,
        keyset.not_before_unix_s - labels.DATE_TOLERANCE_S <= now_unix_s < keyset.not_after_unix_s,
        f"good for {keyset.not_after_unix_s - now_unix_s} s more",
        "the keyset is not valid now; fetch fresh evidence, and compare clocks",
    )
    ledger.expect(
        CheckId.KEYSET_KIND,
        keyset.simulated == (policy.kind == "simulated"),
        f"the keyset says it is of {policy.kind} kind",
        f"the keyset says it is of {'simulated' if keyset.simulated else 'hardware'} kind, the policy is not",
    )
    try:
        offered = {(c.kem_id, *pair) for c in parse_key_configs(keyset.ohttp_keys) for pair in c.symmetric}
    except ProtocolError:
        offered = set()
    ledger.expect(
        CheckId.SUITE,
        SUITES[policy.suite] in offered,
        f"{policy.suite} is offered",
        f"{policy.suite} is not offered, and nothing else will do",
    )
    return keyset


def _check_manifest(
    ledger: Ledger, evidence: EvidenceBundle, keyset: Keyset | None, policy: AppraisalPolicy
) -> Manifest | None:
    try:
        manifest = parse_manifest(evidence.manifest)
    except ProtocolError as fault:
        ledger.fail(CheckId.MANIFEST_FORMAT, str(fault))
        return None
    ledger.expect(CheckId.MANIFEST_FORMAT, True, "a manifest", "")
    if keyset is not None:
        ledger.expect(
            CheckId.MANIFEST_DIGEST,
            manifest.digest == keyset.manifest_digest,
            "the keyset names this manifest",
            "the keyset names another manifest",
        )
    digest_hex = manifest.digest.hex()
    ledger.expect(
        CheckId.MANIFEST,
        digest_hex in policy.manifest.digests,
        f"{digest_hex[:16]}… is pinned",
        f"{digest_hex[:16]}… is none of the {len(policy.manifest.digests)} pinned manifests",
    )
    platform = "simulated-sev-snp" if policy.kind == "simulated" else "sev-snp"
    ledger.expect(
        CheckId.PLATFORM,
        manifest.platform == platform,
        f"the manifest says {platform}",
        f"the manifest does not say {platform}",
    )
    ledger.expect(
        CheckId.SHAPE,
        policy.shape in manifest.shapes,
        f"{policy.shape} is offered",
        f"{policy.shape} is not offered, and nothing else will do",
    )
    return manifest


def _check_gpus(
    ledger: Ledger, evidence: EvidenceBundle, statement: ReportDataStatement | None, policy: AppraisalPolicy
) -> None:
    bound = statement is not None and statement.gpu_evidence_digest is not None
    ledger.expect(
        CheckId.GPU_EVIDENCE,
        policy.gpu.count == 0 and not evidence.gpus and not bound,
        "the policy demands no GPU, and there is no evidence of one",
        "the policy demands GPUs, and this release judges no GPU evidence"
        if policy.gpu.count
        else "there is GPU evidence, and the policy demands none",
    )
