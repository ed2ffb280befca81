"""A whole simulated attestation, each part of which a test can make lie and sign afresh."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from confide_attestation.appraise import appraise
from confide_attestation.evidence import CpuEvidence, CpuKind, Endorsements, EvidenceBundle, SnpEndorsements
from confide_attestation.policy import AppraisalPolicy, load_policy
from confide_attestation.policy_text import simulated_policy
from confide_attestation.result import AttestationResult
from confide_attestation.simulated.amd import SimulatedAmd, SimulatedKeys
from confide_protocol.keyconfig import KeyConfig, encode_key_configs
from confide_protocol.keyset import Keyset, Manifest
from confide_protocol.statement import NoncePath, ReportDataStatement, coalesce_nonces

NOW = 1_800_000_000
NONCE = b"n" * 32
X_WING_CONFIG = KeyConfig(1, 0x647A, bytes(1216), ((1, 2),))


@cache
def shared_keys() -> SimulatedKeys:
    """Make keys once a run: RSA is the slow part."""
    return SimulatedKeys.generate()


@cache
def other_keys() -> SimulatedKeys:
    return SimulatedKeys.generate()


def bind(
    platform: str, *, manifest: dict[str, Any], keyset: dict[str, Any], statement: dict[str, Any]
) -> tuple[Manifest, Keyset, ReportDataStatement, NoncePath]:
    """Make what a report is bound to, down to the manifest; each field can be replaced."""
    release = Manifest(
        **{
            "release": "confide 0.1.0",
            "model": "test",
            "weights_digest": b"w" * 32,
            "tokenizer_digest": b"t" * 32,
            "engine": {"threads": 1},
            "shapes": ("none", "bucketed"),
            "platform": platform,
            **manifest,
        }
    )
    keys = Keyset(
        **{
            "ohttp_keys": encode_key_configs([X_WING_CONFIG]),
            "receipt_ed25519": bytes(32),
            "receipt_ml_dsa_65": bytes(1952),
            "usage_ed25519": bytes(32),
            "manifest_digest": release.digest,
            "not_before_unix_s": NOW - 10,
            "not_after_unix_s": NOW + 3600,
            "simulated": True,
            **keyset,
        }
    )
    root, (path,) = coalesce_nonces([NONCE])
    bound = ReportDataStatement(
        **{"keyset_digest": keys.digest, "not_after_unix_s": NOW + 600, "nonce": root, **statement}
    )
    return release, keys, bound, path


@dataclass
class Scene:
    """What goes into one appraisal; tests change fields, then call `appraise`."""

    amd: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    keyset: dict[str, Any] = field(default_factory=dict)
    statement: dict[str, Any] = field(default_factory=dict)
    bundle: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    policy_fields: dict[str, Any] = field(default_factory=dict)
    policy_edits: list[tuple[str, str]] = field(default_factory=list)
    endorse: Callable[[SimulatedAmd], dict[str, Any]] = lambda amd: {}
    after_signing: Callable[[bytes], bytes] = lambda report: report

    def edit_policy(self, old: str, new: str) -> None:
        self.policy_edits.append((old, new))

    @property
    def device(self) -> SimulatedAmd:
        return SimulatedAmd.make(NOW, keys=shared_keys(), **self.amd)

    def policy_text(self, endorsements: SnpEndorsements | None, manifest: bytes) -> str:
        """Write the policy that accepts this scene, with this scene's edits."""
        ark = endorsements.ark if endorsements is not None else None
        fields = {
            "ark_sha256": hashlib.sha256(ark or b"").digest(),
            "measurement": self.device.measurement,
            "manifest_digest": hashlib.sha256(manifest).digest(),
            "not_after_unix_s": NOW + 90 * 86_400,
            **self.policy_fields,
        }
        text = simulated_policy(**fields)
        for old, new in self.policy_edits:
            assert old in text, f"the policy has no {old}"
            text = text.replace(old, new)
        return text

    def build(self) -> tuple[EvidenceBundle, Endorsements, AppraisalPolicy]:
        """Sign everything and return what `appraise` takes."""
        device = self.device
        manifest, keyset, statement, path = bind(
            "simulated-sev-snp", manifest=self.manifest, keyset=self.keyset, statement=self.statement
        )
        report = dict(self.report)
        report_data = report.pop("report_data", statement.report_data)
        cpu = CpuEvidence(CpuKind.SEV_SNP, self.after_signing(device.sign_report(report_data, **report)))
        evidence = EvidenceBundle(keyset.encoded, manifest.encoded, statement.encoded, path, cpu)
        endorsements = replace(device.endorsements, **self.endorse(device))
        return (
            replace(evidence, **self.bundle),
            Endorsements(snp=endorsements),
            load_policy(self.policy_text(endorsements, manifest.encoded).encode(), "policy.toml"),
        )

    def appraise(self) -> AttestationResult:
        evidence, endorsements, policy = self.build()
        arguments = {"now_unix_s": NOW, "floor": 1, "nonce": NONCE, "allow_simulated": True, **self.arguments}
        return appraise(evidence, endorsements, policy, **arguments)
