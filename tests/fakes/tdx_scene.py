"""A whole simulated TDX attestation, each part of which a test can make lie and sign afresh."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from confide_attestation.appraise import appraise
from confide_attestation.eventlog.dstack import RUNTIME_EVENT
from confide_attestation.eventlog.replay import replay
from confide_attestation.eventlog.verify import parse_event_log
from confide_attestation.evidence import (
    CpuEvidence,
    CpuKind,
    Endorsements,
    EventLog,
    EvidenceBundle,
    TdxEndorsements,
)
from confide_attestation.policy import AppraisalPolicy, load_policy
from confide_attestation.result import AttestationResult
from confide_attestation.simulated.intel import SimulatedIntel, SimulatedKeys

from tests.fakes.scene import NONCE, NOW, bind
from tests.fakes.tdx_policy import ZEROS, tdx_policy

DIRECT, GCP, DSTACK = "tdx/direct", "tdx/gcp", "tdx/dstack"
COMPOSE_HASH = hashlib.sha256(b"app-compose.json").digest()


@cache
def genuine_keys() -> SimulatedKeys:
    return SimulatedKeys.generate()


@cache
def genuine() -> SimulatedIntel:
    return SimulatedIntel.make(NOW, keys=genuine_keys())


def runtime(name: str, payload: bytes) -> dict[str, Any]:
    """One event of dstack's, its digest as the guest agent makes it."""
    text = RUNTIME_EVENT.to_bytes(4, "little") + b":" + name.encode() + b":" + payload
    return {
        "imr": 3,
        "event_type": RUNTIME_EVENT,
        "digest": hashlib.sha384(text).hexdigest(),
        "event": name,
        "event_payload": payload.hex(),
    }


def firmware(imr: int, data: bytes) -> dict[str, Any]:
    return {
        "imr": imr, "event_type": 4, "digest": hashlib.sha384(data).hexdigest(), "event": "",
        "event_payload": data.hex(),
    }  # fmt: skip


def dstack_events(compose_hash: bytes = COMPOSE_HASH) -> list[dict[str, Any]]:
    measured = [firmware(imr, bytes((imr, 0, 0, 0))) for imr in range(3)]
    boot = [("app-id", compose_hash[:20]), ("compose-hash", compose_hash), ("system-ready", b"")]
    return [*measured, *(runtime(name, payload) for name, payload in boot)]


def ccel(*more: bytes) -> bytes:
    """Return a CCEL of one event in each register, and `more` in the last."""
    spec = b"Spec ID Event03\0" + bytes(8) + b"\1\0\0\0\x0c\0\x30\0" + b"\0"
    log = b"\1\0\0\0\3\0\0\0" + bytes(20) + len(spec).to_bytes(4, "little") + spec
    for register, data in [*((at, bytes((at, 0, 0, 0))) for at in range(1, 5)), *((4, data) for data in more)]:
        log += register.to_bytes(4, "little") + b"\4\0\0\0\1\0\0\0\x0c\0" + hashlib.sha384(data).digest()
        log += len(data).to_bytes(4, "little") + data
    return log + b"\xff" * 16


def genuine_log(profile: str) -> EventLog | None:
    if profile == DIRECT:
        return None
    if profile == GCP:
        return EventLog("ccel", ccel())
    return EventLog("dstack", json.dumps(dstack_events()).encode())


@dataclass
class TdxScene:
    """What goes into one appraisal of a TD; tests change fields, then call `appraise`.

    `log` is what the TD measured, `logs` (if given) what the evidence shows.
    """

    profile: str = DIRECT
    intel: dict[str, Any] = field(default_factory=dict)
    quote: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    keyset: dict[str, Any] = field(default_factory=dict)
    statement: dict[str, Any] = field(default_factory=dict)
    bundle: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    pins: dict[str, str] = field(default_factory=dict)
    policy_edits: list[tuple[str, str]] = field(default_factory=list)
    log: EventLog | None = None
    logs: tuple[EventLog, ...] | None = None
    collateral: Callable[[SimulatedIntel], bytes | None] = lambda intel: intel.collateral()
    after_signing: Callable[[bytes], bytes] = lambda quote: quote

    def edit_policy(self, old: str, new: str) -> None:
        self.policy_edits.append((old, new))

    @property
    def measured(self) -> EventLog | None:
        return self.log if self.log is not None else genuine_log(self.profile)

    @property
    def registers(self) -> dict[str, bytes]:
        if self.measured is None:
            made = tuple(hashlib.sha384(bytes((at,))).digest() for at in range(4))
        else:
            made = replay(parse_event_log(self.measured.data).events)
        return {f"rtmr{at}": register for at, register in enumerate(made)}

    def policy_text(self, manifest: bytes, root: bytes) -> str:
        """Write the policy that accepts what a genuine machine under `root` shows, with this scene's edits."""
        registers = {name: value.hex() for name, value in TdxScene(self.profile).registers.items()}
        values = {
            "ppid": genuine().ppid.hex(),
            "mr_seam": genuine().mr_seam.hex(),
            "mr_td": genuine().mr_td.hex(),
            **registers,
            "mr_config_id": ZEROS,
            "xfam": "e702060000000000",
            **self.pins,
        }
        text = tdx_policy(
            self.profile,
            values,
            manifest_sha256=hashlib.sha256(manifest).hexdigest(),
            root_sha256=self.pins.get("root") or hashlib.sha256(root).hexdigest(),
            compose_hash=COMPOSE_HASH.hex() if self.profile == DSTACK else None,
        )
        for old, new in self.policy_edits:
            assert old in text, f"the policy has no {old}"
            text = text.replace(old, new)
        return text

    def build(self) -> tuple[EvidenceBundle, Endorsements, AppraisalPolicy]:
        """Sign everything and return what `appraise` takes."""
        platform = "simulated-dstack" if self.profile == DSTACK else "simulated-tdx"
        manifest, keyset, statement, path = bind(
            platform, manifest=self.manifest, keyset=self.keyset, statement=self.statement
        )
        device = SimulatedIntel.make(NOW, keys=genuine_keys(), **self.intel) if self.intel else genuine()
        fields = {**self.registers, **self.quote}
        report_data = fields.pop("report_data", statement.report_data)
        cpu = CpuEvidence(CpuKind.TDX, self.after_signing(device.sign_quote(report_data, **fields)))
        shown = self.logs if self.logs is not None else () if self.measured is None else (self.measured,)
        evidence = EvidenceBundle(keyset.encoded, manifest.encoded, statement.encoded, path, cpu, event_logs=shown)
        collateral = self.collateral(device)
        return (
            replace(evidence, **self.bundle),
            Endorsements(tdx=None if collateral is None else TdxEndorsements(collateral)),
            load_policy(self.policy_text(manifest.encoded, device.root).encode(), "policy.toml"),
        )

    def appraise(self) -> AttestationResult:
        evidence, endorsements, policy = self.build()
        arguments = {"now_unix_s": NOW, "floor": 1, "nonce": NONCE, "allow_simulated": True, **self.arguments}
        return appraise(evidence, endorsements, policy, **arguments)
