"""Evidence as it travels: untrusted bytes in named places, nothing judged (SPEC 4.4)."""

from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from confide_protocol import cbor, labels
from confide_protocol.errors import ProtocolError
from confide_protocol.statement import MAX_NONCE_PATH, NoncePath

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.nvidia.evidence import NvidiaEndorsements
from confide_attestation.nvidia.ocsp import OcspAnswer

MAX_BUNDLE_BYTES = 4 << 20
MAX_PART_BYTES = 1 << 20
MAX_GPUS = 32
MAX_EVENT_LOGS = 8
EVENT_LOG_KINDS = ("ccel", "dstack")
MAX_RIMS = 64
MAX_OCSP_ANSWERS = 512


class CpuKind(StrEnum):
    SEV_SNP = "sev-snp"
    TDX = "tdx"
    AZURE_SEV_SNP = "azure-sev-snp"
    AZURE_TDX = "azure-tdx"


@dataclass(frozen=True)
class VtpmEvidence:
    """What a machine's vTPM shows: the quote (TPMS_ATTEST), its signature as it lies, 24 PCRs as JSON.

    `td_quote` is the TDX quote into which the HCL report's TDREPORT was turned; empty on SEV-SNP.
    """

    quote: bytes
    signature: bytes
    pcrs: bytes
    td_quote: bytes = b""


@dataclass(frozen=True)
class CpuEvidence:
    """One report or quote of the CPU's TEE as the hardware gave it; on Azure the HCL report with a vTPM's quote."""

    kind: CpuKind
    report: bytes
    vtpm: VtpmEvidence | None = None

    @property
    def has_more(self) -> bool:
        """Say whether there is a part that evidence of this kind does not have, and so nothing would judge."""
        if self.vtpm is None or self.kind is CpuKind.AZURE_TDX:
            return False
        return self.kind is not CpuKind.AZURE_SEV_SNP or bool(self.vtpm.td_quote)


@dataclass(frozen=True)
class GpuEvidence:
    """One GPU's or switch's signed report and its certificate chain (PEM). `architecture` proves nothing."""

    architecture: str
    report: bytes
    certificate_chain: bytes


@dataclass(frozen=True)
class EventLog:
    """What replays into a quote's registers: "ccel" (binary) or "dstack" (JSON)."""

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
class TdxEndorsements:
    """Intel's documents for the platform: dcap-qvl's QuoteCollateralV3 as JSON."""

    collateral: bytes


@dataclass(frozen=True)
class Endorsements:
    """What vendors say of the hardware, one place a vendor; untrusted bytes until their signatures are verified."""

    snp: SnpEndorsements | None = None
    tdx: TdxEndorsements | None = None
    nvidia: NvidiaEndorsements | None = None


_VTPM_PARTS = tuple(each.name for each in fields(VtpmEvidence))


def encode_bundle(evidence: EvidenceBundle, endorsements: Endorsements) -> bytes:
    """Encode evidence with the endorsements that the enclave offers, as `/evidence` serves them."""
    vtpm = evidence.cpu.vtpm
    return cbor.encode(
        {
            "purpose": labels.PURPOSE_BUNDLE,
            "keyset": evidence.keyset,
            "manifest": evidence.manifest,
            "statement": evidence.statement,
            "nonce_path": [[left, sibling] for left, sibling in evidence.nonce_path.steps],
            "cpu": {
                "kind": evidence.cpu.kind.value,
                "report": evidence.cpu.report,
                "vtpm": None if vtpm is None else asdict(vtpm),
            },
            "gpus": [asdict(gpu) for gpu in evidence.gpus],
            "event_logs": [asdict(log) for log in evidence.event_logs],
            "endorsements": _endorsement_tree(endorsements),
        }
    )


def encode_endorsements(endorsements: Endorsements) -> bytes:
    """Encode endorsements alone: the file that `confide endorsements export` writes and an enclave reads."""
    return cbor.encode({"purpose": labels.PURPOSE_ENDORSEMENTS, **_endorsement_tree(endorsements)})


def parse_endorsements(data: bytes) -> Endorsements:
    """Parse a file of endorsements; makes no trust claim. Raises: EvidenceMalformed."""
    tree = _decode(data, "endorsements")
    if not isinstance(tree, dict) or tree.pop("purpose", None) != labels.PURPOSE_ENDORSEMENTS:
        raise EvidenceMalformed("endorsements: wrong purpose; `confide endorsements export` writes such a file")
    return _endorsements(tree)


def _endorsement_tree(endorsements: Endorsements) -> dict[str, Any]:
    snp, tdx, nvidia = endorsements.snp, endorsements.tdx, endorsements.nvidia
    tree: dict[str, Any] = {}
    if snp is not None:
        tree["snp"] = {name: value for name, value in asdict(snp).items() if value is not None}
    if tdx is not None:
        tree["tdx"] = {"collateral": tdx.collateral}
    if nvidia is not None:
        answers = nvidia.ocsp
        tree["nvidia"] = {
            "rims": list(nvidia.rims),
            "ocsp": None if answers is None else [[each.der, each.asked_nonce] for each in answers],
        }
    return tree


def parse_bundle(data: bytes) -> tuple[EvidenceBundle, Endorsements]:
    """Parse a bundle; makes no trust claim. Raises: EvidenceMalformed."""
    tree = _decode(data, "evidence bundle")
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
    cpu = _keys(tree["cpu"], {"kind", "report", "vtpm"})
    if cpu["kind"] not in tuple(CpuKind):
        raise EvidenceMalformed("evidence bundle: unknown kind of CPU evidence")
    gpus = [_keys(g, {"architecture", "report", "certificate_chain"}) for g in _list(tree["gpus"], MAX_GPUS)]
    logs = [_keys(log, {"kind", "data"}) for log in _list(tree["event_logs"], MAX_EVENT_LOGS)]
    if any(log["kind"] not in EVENT_LOG_KINDS for log in logs):
        raise EvidenceMalformed(f"evidence bundle: an event log is of kind {' or '.join(EVENT_LOG_KINDS)}")
    return (
        EvidenceBundle(
            keyset=_bytes(tree["keyset"]),
            manifest=_bytes(tree["manifest"]),
            statement=_bytes(tree["statement"]),
            nonce_path=_nonce_path(tree["nonce_path"]),
            cpu=CpuEvidence(CpuKind(cpu["kind"]), _bytes(cpu["report"]), _vtpm(cpu["vtpm"])),
            gpus=tuple(
                GpuEvidence(_text(g["architecture"]), _bytes(g["report"]), _bytes(g["certificate_chain"]))
                for g in gpus
            ),
            event_logs=tuple(EventLog(log["kind"], _bytes(log["data"])) for log in logs),
        ),
        _endorsements(tree["endorsements"]),
    )


def _decode(data: bytes, what: str) -> Any:  # noqa: ANN401
    try:
        return cbor.decode(data, max_bytes=MAX_BUNDLE_BYTES)
    except ProtocolError as fault:
        raise EvidenceMalformed(f"{what}: {fault}") from None


def _vtpm(tree: Any) -> VtpmEvidence | None:  # noqa: ANN401
    if tree is None:
        return None
    return VtpmEvidence(**{name: _bytes(part) for name, part in _keys(tree, set(_VTPM_PARTS)).items()})


def _endorsements(tree: Any) -> Endorsements:  # noqa: ANN401
    if not isinstance(tree, dict) or not set(tree) <= {"snp", "tdx", "nvidia"}:
        raise EvidenceMalformed("endorsements: of an unknown vendor")
    snp = tdx = nvidia = None
    if "snp" in tree:
        parts = tree["snp"]
        if not isinstance(parts, dict) or not {"vek"} <= set(parts) <= {"vek", "ask", "ark", "crl"}:
            raise EvidenceMalformed("endorsements: those of SEV-SNP need a vek and know ask, ark and crl")
        snp = SnpEndorsements(**{name: _bytes(value) for name, value in parts.items()})
    if "tdx" in tree:
        tdx = TdxEndorsements(_bytes(_keys(tree["tdx"], {"collateral"})["collateral"]))
    if "nvidia" in tree:
        parts = _keys(tree["nvidia"], {"rims", "ocsp"})
        rims = tuple(_bytes(rim) for rim in _list(parts["rims"], MAX_RIMS))
        answers = parts["ocsp"]
        nvidia = NvidiaEndorsements(
            rims, None if answers is None else tuple(map(_answer, _list(answers, MAX_OCSP_ANSWERS)))
        )
    return Endorsements(snp, tdx, nvidia)


def _answer(tree: Any) -> OcspAnswer:  # noqa: ANN401
    if not isinstance(tree, list) or len(tree) != 2:
        raise EvidenceMalformed("endorsements: an OCSP answer stands with the nonce that was asked, or null")
    return OcspAnswer(_bytes(tree[0]), None if tree[1] is None else _bytes(tree[1]))


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
