"""A node over HTTP whose live evidence is of SIMULATED hardware in the real formats, and its policy."""

import os
import time
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import parse_qs, urlsplit

from confide_attestation.evidence import CpuEvidence, CpuKind, Endorsements, EvidenceBundle, encode_bundle
from confide_attestation.policy_text import simulated_policy
from confide_attestation.simulated.amd import SimulatedAmd
from confide_protocol import labels
from confide_protocol.keyconfig import KeyConfig, encode_key_configs
from confide_protocol.keyset import Keyset, Manifest
from confide_protocol.statement import ReportDataStatement, coalesce_nonces

from tests.fakes.upstream import Behaviour, Call, FakeUpstream, echo

MANIFEST = Manifest(
    release="0.0.0-test",
    model="test-model",
    weights_digest=b"\1" * 32,
    tokenizer_digest=b"\2" * 32,
    engine={"mode": "fast"},
    shapes=(labels.SHAPE_NONE, labels.SHAPE_BUCKETED),
    platform="simulated-sev-snp",
)


@cache
def device() -> SimulatedAmd:
    """Make one hierarchy for the whole run: its RSA keys are slow to make."""
    return SimulatedAmd.make(int(time.time()))


def policy_toml() -> str:
    """Write the policy that accepts `device` and `MANIFEST`."""
    return simulated_policy(
        ark_sha256=device().ark_sha256,
        measurement=device().measurement,
        manifest_digest=MANIFEST.digest,
        not_after_unix_s=int(time.time()) + 3600,
    )


def make_keyset(*, lifetime_s: int = 3600) -> Keyset:
    now = int(time.time())
    return Keyset(
        ohttp_keys=encode_key_configs([KeyConfig(1, 0x647A, os.urandom(1216), ((1, 2),))]),
        receipt_ed25519=os.urandom(32),
        receipt_ml_dsa_65=os.urandom(1952),
        usage_ed25519=os.urandom(32),
        manifest_digest=MANIFEST.digest,
        not_before_unix_s=now - 10,
        not_after_unix_s=now + lifetime_s,
        simulated=True,
    )


@dataclass
class AttestedNode:
    """What `/evidence` serves. Set a field to make the node lie: `raw` replaces the bundle's bytes.

    `told`: what it says of the keysets that it made; None: the truth.
    """

    keyset: Keyset = field(default_factory=make_keyset)
    served_keyset: Keyset | None = None
    fixed_nonce: bytes | None = None
    evidence_status: int = 200
    ready_status: int = 200
    raw: bytes | None = None
    told: str | None = None
    made: list[str] = field(default_factory=list)

    def bundle(self, nonce: bytes) -> bytes:
        root, (path,) = coalesce_nonces([self.fixed_nonce or nonce])
        statement = ReportDataStatement(self.keyset.digest, self.keyset.not_after_unix_s, nonce=root)
        evidence = EvidenceBundle(
            keyset=(self.served_keyset or self.keyset).encoded,
            manifest=MANIFEST.encoded,
            statement=statement.encoded,
            nonce_path=path,
            cpu=CpuEvidence(CpuKind.SEV_SNP, device().sign_report(statement.report_data)),
        )
        return encode_bundle(evidence, Endorsements(snp=device().endorsements))

    async def serve_evidence(self, call: Call) -> None:
        nonce = bytes.fromhex(parse_qs(urlsplit(call.seen.path).query)["nonce"][0])
        body = self.bundle(nonce) if self.raw is None else self.raw
        if self.keyset.digest.hex() not in self.made:
            self.made.insert(0, self.keyset.digest.hex())
        told = ",".join(self.made) if self.told is None else self.told
        await call.answer(body, self.evidence_status, labels.MEDIA_EVIDENCE, confide_keysets=told)

    async def serve_ready(self, call: Call) -> None:
        await call.answer(b'{"status":"as told"}', self.ready_status, "application/json")

    async def serve_keys(self, call: Call) -> None:
        await call.answer(self.keyset.ohttp_keys, 200, labels.MEDIA_KEYS)

    @property
    def path(self) -> str:
        return labels.PATH_OHTTP + self.keyset.digest.hex()


async def healthy(call: Call) -> None:
    await call.answer(b'{"status":"ok"}', 200, "application/json")


def attested_upstream(node: AttestedNode, behaviour: Behaviour = echo) -> FakeUpstream:
    """Serve a node's control paths honestly (or as it lies), and sealed requests by `behaviour`."""
    return FakeUpstream(
        behaviour,
        {
            labels.PATH_EVIDENCE: node.serve_evidence,
            labels.PATH_KEYS: node.serve_keys,
            labels.PATH_HEALTH: healthy,
            labels.PATH_READY: node.serve_ready,
        },
    )
