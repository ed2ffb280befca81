"""A whole simulated attestation of an Azure machine, each part of which a test can make lie and sign afresh."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from confide_attestation.appraise import appraise
from confide_attestation.evidence import (
    CpuEvidence,
    CpuKind,
    Endorsements,
    EvidenceBundle,
    SnpEndorsements,
    TdxEndorsements,
    VtpmEvidence,
)
from confide_attestation.policy import AppraisalPolicy, load_policy
from confide_attestation.policy_text import simulated_policy
from confide_attestation.result import AttestationResult
from confide_attestation.simulated.amd import SimulatedAmd
from confide_attestation.simulated.azure import SimulatedAzure, make_ak
from confide_attestation.vtpm.policy import COVERING

from tests.fakes import tdx_scene
from tests.fakes.scene import NONCE, NOW, bind, shared_keys
from tests.fakes.tdx_policy import ZEROS, tdx_policy

SNP, TDX = "azure/sev-snp", "azure/tdx"
_KINDS = {SNP: CpuKind.AZURE_SEV_SNP, TDX: CpuKind.AZURE_TDX}


@cache
def snp() -> SimulatedAzure:
    return SimulatedAzure(SimulatedAmd.make(NOW, keys=shared_keys()), make_ak())


@cache
def tdx() -> SimulatedAzure:
    return SimulatedAzure(tdx_scene.genuine(), make_ak())


def vtpm_policy(machine: SimulatedAzure) -> str:
    pinned = "\n".join(f'{pcr} = ["{machine.pcrs[pcr].hex()}"]' for pcr in sorted(COVERING))
    return (
        '\n[platform.vtpm]\nsecure_boot = "required"\nconsole = "refused"\n'
        f'user_data = "{"00" * 64}"\n\n[platform.vtpm.pcrs]\n{pinned}\n'
    )


@dataclass
class AzureScene:
    """What goes into one appraisal of a machine; tests change fields, then call `appraise`.

    `machine` are the lies of `SimulatedAzure.machine`; `quote` makes the vTPM's quote of the statement's digest.
    """

    profile: str = SNP
    machine: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    keyset: dict[str, Any] = field(default_factory=dict)
    statement: dict[str, Any] = field(default_factory=dict)
    bundle: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    policy_edits: list[tuple[str, str]] = field(default_factory=list)
    quote: Callable[[SimulatedAzure, bytes], VtpmEvidence | None] = lambda azure, digest: azure.quote(digest)
    endorse: Callable[[Endorsements], Endorsements] = lambda endorsements: endorsements

    def edit_policy(self, old: str, new: str) -> None:
        self.policy_edits.append((old, new))

    @property
    def azure(self) -> SimulatedAzure:
        return snp() if self.profile == SNP else tdx()

    def policy_text(self, manifest: bytes) -> str:
        """Write the policy that accepts what the genuine machine shows, with this scene's edits."""
        hardware = self.azure.hardware
        if isinstance(hardware, SimulatedAmd):
            text = simulated_policy(
                ark_sha256=hardware.ark_sha256,
                measurement=hardware.measurement,
                manifest_digest=hashlib.sha256(manifest).digest(),
                not_after_unix_s=NOW + 90 * 86_400,
            ).replace("sev-snp/kernel-hashes", SNP)
        else:
            text = tdx_policy(
                TDX,
                {
                    "ppid": hardware.ppid.hex(),
                    "mr_seam": hardware.mr_seam.hex(),
                    "mr_td": hardware.mr_td.hex(),
                    **{f"rtmr{at}": ZEROS for at in range(4)},
                    "mr_config_id": ZEROS,
                    "xfam": "e702060000000000",
                },
                manifest_sha256=hashlib.sha256(manifest).hexdigest(),
                root_sha256=hashlib.sha256(hardware.root).hexdigest(),
            )
        text += vtpm_policy(self.azure)
        for old, new in self.policy_edits:
            assert old in text, f"the policy has no {old}"
            text = text.replace(old, new)
        return text

    def build(self) -> tuple[EvidenceBundle, Endorsements, AppraisalPolicy]:
        """Sign everything and return what `appraise` takes."""
        kind = _KINDS[self.profile]
        manifest, keyset, statement, path = bind(
            f"simulated-{kind}", manifest=self.manifest, keyset=self.keyset, statement=self.statement
        )
        hcl, platform = self.azure.machine(**self.machine)
        vtpm = self.quote(self.azure, statement.digest)
        if isinstance(platform, SnpEndorsements):
            endorsements = Endorsements(snp=platform)
        else:
            endorsements = Endorsements(tdx=TdxEndorsements(platform.collateral_json))
            vtpm = None if vtpm is None else replace(vtpm, td_quote=vtpm.td_quote or platform.quote)
        evidence = EvidenceBundle(
            keyset.encoded, manifest.encoded, statement.encoded, path, CpuEvidence(kind, hcl, vtpm)
        )
        return (
            replace(evidence, **self.bundle),
            self.endorse(endorsements),
            load_policy(self.policy_text(manifest.encoded).encode(), "policy.toml"),
        )

    def appraise(self) -> AttestationResult:
        evidence, endorsements, policy = self.build()
        arguments = {"now_unix_s": NOW, "floor": 1, "nonce": NONCE, "allow_simulated": True, **self.arguments}
        return appraise(evidence, endorsements, policy, **arguments)
