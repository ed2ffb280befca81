"""From the report to the keyset: statement, freshness, keyset, manifest, and what must stand beside them."""

from collections.abc import Mapping
from dataclasses import dataclass

from confide_protocol import labels
from confide_protocol.errors import ProtocolError
from confide_protocol.keyconfig import parse_key_configs
from confide_protocol.keyset import Keyset, Manifest, parse_keyset, parse_manifest
from confide_protocol.statement import ReportDataStatement, parse_statement

from confide_attestation.checks.ids import CheckId
from confide_attestation.checks.ledger import Ledger
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import CpuKind, EvidenceBundle
from confide_attestation.nvidia.digest import gpu_evidence_digest
from confide_attestation.policy import SUITES, AppraisalPolicy, Epoch
from confide_attestation.policy_types import Waived


@dataclass(frozen=True)
class Binding:
    """The statements as parsed, each None if its bytes are not what they should be; when the epoch is too old."""

    statement: ReportDataStatement | None
    keyset: Keyset | None
    manifest: Manifest | None
    not_after_unix_s: int | None


def check_binding(
    ledger: Ledger,
    evidence: EvidenceBundle,
    bound: bytes | None,
    policy: AppraisalPolicy,
    *,
    now_unix_s: int,
    nonce: bytes | None,
    epochs: Mapping[bytes, int],
) -> Binding:
    """Judge everything between what the hardware signed and the keyset.

    `bound` is None unless the hardware's signatures hold. Does not check: the hardware's evidence itself.
    """
    kind, wanted, more = evidence.cpu.kind, policy.platform.cpu_kind, evidence.cpu.has_more
    profile = policy.platform.profile
    ledger.expect(
        CheckId.CPU_KIND,
        kind is wanted and not more,
        f"{kind}, as the profile {profile} demands",
        f"{kind}{' and parts of another kind' if more else ''}, the profile {profile} demands {wanted}",
    )
    statement, end_unix_s = _check_statement(ledger, evidence, bound, now_unix_s), None
    if statement is not None:
        end_unix_s = _check_freshness(ledger, evidence, statement, policy, now_unix_s, nonce, epochs)
    keyset = _check_keyset(ledger, evidence, statement, policy, now_unix_s)
    manifest = _check_manifest(ledger, evidence, keyset, policy)
    _check_gpus(ledger, evidence, statement, policy)
    logs, known = tuple(log.kind for log in evidence.event_logs), policy.platform.event_logs
    ledger.expect(
        CheckId.EVENT_LOGS,
        logs == known,
        f"the profile {profile} knows {', '.join(known) or 'none'}",
        f"the profile {profile} knows {', '.join(known) or 'none'}, the evidence has {', '.join(logs) or 'none'}",
    )
    return Binding(statement, keyset, manifest, end_unix_s)


def _check_statement(
    ledger: Ledger, evidence: EvidenceBundle, bound: bytes | None, now_unix_s: int
) -> ReportDataStatement | None:
    try:
        statement = parse_statement(evidence.statement)
    except ProtocolError as fault:
        ledger.fail(CheckId.STATEMENT_FORMAT, str(fault))
        return None
    ledger.expect(CheckId.STATEMENT_FORMAT, True, "a report-data statement", "")
    if bound is not None:
        # A TPM's quote has 32 bytes for it, reports and quotes of CPUs have 64.
        azure = evidence.cpu.kind in (CpuKind.AZURE_SEV_SNP, CpuKind.AZURE_TDX)
        ledger.expect(
            CheckId.REPORT_DATA,
            bound == (statement.digest if azure else statement.report_data),
            f"the hardware signed {'SHA-256' if azure else 'SHA-512'} of the statement",
            "the hardware signed something else than this statement",
        )
    ledger.expect(
        CheckId.STATEMENT_EXPIRED,
        now_unix_s < statement.not_after_unix_s,
        f"good for {statement.not_after_unix_s - now_unix_s} s more",
        "the statement has expired; fetch fresh evidence, and compare clocks",
    )
    return statement


def _check_freshness(
    ledger: Ledger,
    evidence: EvidenceBundle,
    statement: ReportDataStatement,
    policy: AppraisalPolicy,
    now_unix_s: int,
    nonce: bytes | None,
    epochs: Mapping[bytes, int],
) -> int | None:
    """Return when what answered ceases to be fresh, None if it does not."""
    if isinstance(policy.freshness, Waived):
        ledger.waive(CheckId.NONCE, policy.freshness.waived)
    elif isinstance(policy.freshness, Epoch):
        published_unix_s = None if statement.epoch is None else epochs.get(statement.epoch)
        age_s = None if published_unix_s is None else now_unix_s - published_unix_s
        ledger.expect(
            CheckId.NONCE,
            age_s is not None and 0 <= age_s <= policy.freshness.epoch_max_age_s,
            f"the statement answers an epoch of {age_s} s ago",
            "the statement answers no epoch that the caller knows"
            if age_s is None
            else f"the epoch is of {age_s} s ago, at most {policy.freshness.epoch_max_age_s} s are accepted",
        )
        return None if published_unix_s is None else published_unix_s + policy.freshness.epoch_max_age_s
    else:
        answers = nonce is not None and statement.nonce is not None
        ledger.expect(
            CheckId.NONCE,
            answers and nonce is not None and evidence.nonce_path.root(nonce) == statement.nonce,
            "the statement answers our nonce",
            "no nonce was asked for, and the policy demands one"
            if nonce is None
            else "the statement does not answer our nonce",
        )
    return None


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
    platform = policy.platform_name
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
    if statement is None:
        return
    if policy.gpu == "none":
        ledger.expect(
            CheckId.GPU_EVIDENCE,
            not evidence.gpus and statement.gpu_evidence_digest is None,
            "the policy demands no GPU, and there is no evidence of one",
            "there is GPU evidence, and the policy demands none",
        )
        return
    try:
        digest = gpu_evidence_digest(evidence.gpus)
    except EvidenceMalformed as fault:
        ledger.fail(CheckId.GPU_EVIDENCE, str(fault))
        return
    ledger.expect(
        CheckId.GPU_EVIDENCE,
        bool(evidence.gpus) and digest == statement.gpu_evidence_digest,
        f"the statement names this evidence of {len(evidence.gpus)} devices, in this order",
        "the statement names other GPU evidence, or none",
    )
