"""Evidence as it travels: untrusted bytes in named places, nothing judged (SPEC 4.4)."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from confide_protocol import cbor, labels
from confide_protocol.errors import ProtocolError
from confide_protocol.statement import MAX_NONCE_PATH, NoncePath

from confide_attestation.errors import EvidenceMalformed

MAX_BUNDLE_BYTES = 4 << 20
MAX_PART_BYTES = 1 << 20
MAX_GPUS = 32
MAX_EVENT_LOGS = 8


class CpuKind(StrEnum):
    SEV_SNP = "sev-snp"
    TDX = "tdx"


@dataclass(frozen=True)
class CpuEvidence:
    """One report or quote of the CPU's TEE, exactly as the hardware gave it."""

    kind: CpuKind
    report: bytes


@dataclass(frozen=True)
class GpuEvidence:
    """One device's signed report and its certificate chain."""

    architecture: str
    report: bytes
    certificate_chain: bytes


@dataclass(frozen=True)
class EventLog:
    kind: str
    data: bytes


@dataclass(frozen=True)
class EvidenceBundle:
    """Everything an enclave shows of itself. All of it is untrusted until `appraise` has judged it."""

    keyset: bytes
    manifest: bytes
    statement: bytes
    nonce_path: NoncePath
    cpu: CpuEvidence
    gpus: tuple[GpuEvidence, ...] = ()
    event_logs: tuple[EventLog, ...] = ()


@dataclass(frozen=True)
class SnpEndorsements:
    """AMD's certificates and list as DER; `ark` and `crl` may be absent (the packaged chain; not given)."""

    vek: bytes
    ask: bytes | None = None
    ark: bytes | None = None
    crl: bytes | None = None


@dataclass(frozen=True)
class Endorsements:
    """What vendors say of the hardware, one place a vendor; untrusted bytes until their signatures are verified."""

    snp: SnpEndorsements | None = None


def encode_bundle(evidence: EvidenceBundle, endorsements: Endorsements) -> bytes:
    """Encode evidence with the endorsements that the enclave offers, as `/evidence` serves them."""
    snp = endorsements.snp
    return cbor.encode(
        {
            "purpose": labels.PURPOSE_BUNDLE,
            "keyset": evidence.keyset,
            "manifest": evidence.manifest,
            "statement": evidence.statement,
            "nonce_path": [[left, sibling] for left, sibling in evidence.nonce_path.steps],
            "cpu": {"kind": evidence.cpu.kind.value, "report": evidence.cpu.report},
            "gpus": [
                {"architecture": g.architecture, "report": g.report, "certificate_chain": g.certificate_chain}
                for g in evidence.gpus
            ],
            "event_logs": [{"kind": log.kind, "data": log.data} for log in evidence.event_logs],
            "endorsements": {}
            if snp is None
            else {
                "snp": {
                    name: value
                    for name in ("vek", "ask", "ark", "crl")
                    if (value := getattr(snp, name)) is not None
                }
            },
        }
    )


def parse_bundle(data: bytes) -> tuple[EvidenceBundle, Endorsements]:
    """Parse a bundle; makes no trust claim. Raises: EvidenceMalformed."""
    try:
        tree = cbor.decode(data, max_bytes=MAX_BUNDLE_BYTES)
    except ProtocolError as fault:
        raise EvidenceMalformed(f"evidence bundle: {fault}") from None
    _keys(
        tree,
        {
            "purpose",
            "keyset",
            "manifest",
            "statement",
            "nonce_path",
            "cpu",
            "gpus",
            "event_logs",
            "endorsements",
        },
    )
    if tree["purpose"] != labels.PURPOSE_BUNDLE:
        raise EvidenceMalformed("evidence bundle: wrong purpose")
    cpu = _keys(tree["cpu"], {"kind", "report"})
    if cpu["kind"] not in tuple(CpuKind):
        raise EvidenceMalformed("evidence bundle: unknown kind of CPU evidence")
    gpus = [_keys(g, {"architecture", "report", "certificate_chain"}) for g in _list(tree["gpus"], MAX_GPUS)]
    logs = [_keys(log, {"kind", "data"}) for log in _list(tree["event_logs"], MAX_EVENT_LOGS)]
    return (
        EvidenceBundle(
            keyset=_bytes(tree["keyset"]),
            manifest=_bytes(tree["manifest"]),
            statement=_bytes(tree["statement"]),
            nonce_path=_nonce_path(tree["nonce_path"]),
            cpu=CpuEvidence(CpuKind(cpu["kind"]), _bytes(cpu["report"])),
            gpus=tuple(
                GpuEvidence(_text(g["architecture"]), _bytes(g["report"]), _bytes(g["certificate_chain"]))
                for g in gpus
            ),
            event_logs=tuple(EventLog(_text(log["kind"]), _bytes(log["data"])) for log in logs),
        ),
        _endorsements(tree["endorsements"]),
    )


def _endorsements(tree: Any) -> Endorsements:  # noqa: ANN401
    if not isinstance(tree, dict) or not set(tree) <= {"snp"}:
        raise EvidenceMalformed("evidence bundle: unknown endorsements")
    if "snp" not in tree:
        return Endorsements()
    snp = tree["snp"]
    if not isinstance(snp, dict) or not {"vek"} <= set(snp) <= {"vek", "ask", "ark", "crl"}:
        raise EvidenceMalformed("evidence bundle: SEV-SNP endorsements need a vek and know ask, ark and crl")
    return Endorsements(snp=SnpEndorsements(**{name: _bytes(value) for name, value in snp.items()}))


def _nonce_path(tree: Any) -> NoncePath:  # noqa: ANN401
    steps = []
    for step in _list(tree, MAX_NONCE_PATH):
        if not isinstance(step, list) or len(step) != 2 or not isinstance(step[0], bool):
            raise EvidenceMalformed("evidence bundle: a step of the nonce path is malformed")
        if len(_bytes(step[1])) != labels.DIGEST_BYTES:
            raise EvidenceMalformed("evidence bundle: a hash of the nonce path is not 32 bytes")
        steps.append((step[0], step[1]))
    return NoncePath(tuple(steps))


def _keys(tree: Any, keys: set[str]) -> dict[str, Any]:  # noqa: ANN401
    if not isinstance(tree, dict) or set(tree) != keys:
        raise EvidenceMalformed("evidence bundle: needs exactly the fields " + ", ".join(sorted(keys)))
    return tree


def _list(value: Any, limit: int) -> list[Any]:  # noqa: ANN401
    if not isinstance(value, list) or len(value) > limit:
        raise EvidenceMalformed(f"evidence bundle: expected a list of at most {limit}")
    return value


def _bytes(value: Any) -> bytes:  # noqa: ANN401
    if not isinstance(value, bytes) or len(value) > MAX_PART_BYTES:
        raise EvidenceMalformed(f"evidence bundle: expected bytes, at most {MAX_PART_BYTES}")
    return value


def _text(value: Any) -> str:  # noqa: ANN401
    if not isinstance(value, str) or len(value) > 64:
        raise EvidenceMalformed("evidence bundle: expected a short text")
    return value
