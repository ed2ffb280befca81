"""Read Intel's documents about a platform; makes no trust claim.

Source: dcap-qvl's `QuoteCollateralV3` as JSON; Intel PCS API v4, TDX TCB Info V3 and Enclave Identity V2.
The signed documents are kept as the exact text that was signed.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, TypeVar

from cryptography import x509
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.strict_json import load_json
from confide_attestation.tdx.ids import TdxCheck

MAX_COLLATERAL_BYTES = 1 << 20
TEXT_PARTS = (
    "pck_crl_issuer_chain",
    "tcb_info_issuer_chain",
    "tcb_info",
    "qe_identity_issuer_chain",
    "qe_identity",
)
HEX_PARTS = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")
# dcap-qvl may put the certificates of a quote that has none here; these quotes carry theirs.
UNUSED_PART = "pck_certificate_chain"
SIGNATURE_BYTES = 64
_REMEMBERED = 16


class _Document(BaseModel):
    """Part of a document of Intel's; what is not read here may be there."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


def _unix_s(value: object) -> int:
    """Read a date in the one form in which Intel writes it."""
    if not isinstance(value, str):
        raise ValueError("no date")  # noqa: TRY004 - pydantic's own convention
    return int(datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())


Moment = Annotated[int, BeforeValidator(_unix_s)]


class Component(_Document):
    svn: int
    category: str = ""
    type: str = ""


class Tcb(_Document):
    sgx: tuple[Component, ...] = Field(alias="sgxtcbcomponents")
    pce_svn: int = Field(alias="pcesvn")
    tdx: tuple[Component, ...] = Field(default=(), alias="tdxtcbcomponents")


class TcbLevel(_Document):
    tcb: Tcb
    date_unix_s: Moment = Field(alias="tcbDate")
    status: str = Field(alias="tcbStatus")


class ModuleTcb(_Document):
    isv_svn: int = Field(alias="isvsvn")


class ModuleLevel(_Document):
    tcb: ModuleTcb
    date_unix_s: Moment = Field(alias="tcbDate")
    status: str = Field(alias="tcbStatus")


class Module(_Document):
    """The TDX module: who signs it, and with which attributes."""

    id: str = ""
    mr_signer: str = Field(alias="mrsigner")
    attributes: str
    attributes_mask: str = Field(alias="attributesMask")
    levels: tuple[ModuleLevel, ...] = Field(default=(), alias="tcbLevels")


class TcbInfo(_Document):
    """What Intel says of the TCB levels of a platform."""

    id: str = ""
    version: int
    tcb_type: int = Field(default=0, alias="tcbType")
    issued_unix_s: Moment = Field(alias="issueDate")
    next_update_unix_s: Moment = Field(alias="nextUpdate")
    fmspc: str
    pce_id: str = Field(alias="pceId")
    evaluation_number: int = Field(alias="tcbEvaluationDataNumber")
    module: Module | None = Field(default=None, alias="tdxModule")
    modules: tuple[Module, ...] = Field(default=(), alias="tdxModuleIdentities")
    levels: tuple[TcbLevel, ...] = Field(alias="tcbLevels")


class QeIdentity(_Document):
    id: str
    version: int
    issued_unix_s: Moment = Field(alias="issueDate")
    next_update_unix_s: Moment = Field(alias="nextUpdate")
    evaluation_number: int = Field(alias="tcbEvaluationDataNumber")


D = TypeVar("D", bound=_Document)


@dataclass(frozen=True, eq=False)
class Collateral:
    """All documents about one platform, read; nothing is judged. A list that cannot be read was issued at 0."""

    parts: dict[str, str | bytes]
    tcb_info: TcbInfo
    qe_identity: QeIdentity
    root_crl: x509.CertificateRevocationList | None
    pck_crl: x509.CertificateRevocationList | None
    root_crl_issued_unix_s: int
    pck_crl_issued_unix_s: int

    def text(self, part: str) -> str:
        value = self.parts[part]
        assert isinstance(value, str)  # noqa: S101 - parse_collateral made it
        return value


@lru_cache(maxsize=_REMEMBERED)
def parse_collateral(data: bytes) -> Collateral:
    """Read a collateral file. What is remembered follows from its bytes alone.

    Raises: EvidenceMalformed with check `collateral_format`. Does not check: any signature or time; a list that
    cannot be read is None.
    """
    if len(data) > MAX_COLLATERAL_BYTES:
        raise _malformed(f"has {len(data)} bytes, more than {MAX_COLLATERAL_BYTES}")
    tree = _object(data)
    missing = [name for name in (*TEXT_PARTS, *HEX_PARTS) if not isinstance(tree.get(name), str)]
    unknown = sorted(set(tree) - {*TEXT_PARTS, *HEX_PARTS, UNUSED_PART})
    if missing or unknown:
        lacks = "lacks " + ", ".join(missing) if missing else "knows no " + ", ".join(map(repr, unknown))[:80]
        raise _malformed(f"is JSON, but no collateral in dcap-qvl's QuoteCollateralV3 form: it {lacks}")
    parts: dict[str, str | bytes] = {name: tree[name] for name in TEXT_PARTS}
    for name in HEX_PARTS:
        try:
            parts[name] = bytes.fromhex(tree[name])
        except ValueError:
            raise _malformed(f"{name} is not hexadecimal") from None
        if name.endswith("signature") and len(parts[name]) != SIGNATURE_BYTES:
            raise _malformed(f"{name} has {len(parts[name])} bytes, not {SIGNATURE_BYTES}")
    root_crl, pck_crl = _crl(parts["root_ca_crl"]), _crl(parts["pck_crl"])
    return Collateral(
        parts=parts,
        tcb_info=_document(TcbInfo, tree["tcb_info"], "tcb_info"),
        qe_identity=_document(QeIdentity, tree["qe_identity"], "qe_identity"),
        root_crl=root_crl,
        pck_crl=pck_crl,
        root_crl_issued_unix_s=_issued_unix_s(root_crl),
        pck_crl_issued_unix_s=_issued_unix_s(pck_crl),
    )


def _object(data: bytes) -> dict[str, Any]:
    tree = load_json(data, TdxCheck.COLLATERAL_FORMAT, " (dcap-qvl's QuoteCollateralV3)")
    if not isinstance(tree, dict):
        raise _malformed("expected one JSON object (dcap-qvl's QuoteCollateralV3), found another JSON value")
    return tree


def _document(model: type[D], text: str, part: str) -> D:
    try:
        return model.model_validate_json(text)
    except ValidationError as fault:
        where = ".".join(str(step) for step in fault.errors()[0]["loc"])
        raise _malformed(f"{part} is not Intel's document: {where or 'no JSON'}") from None


def _crl(data: str | bytes) -> x509.CertificateRevocationList | None:
    assert isinstance(data, bytes)  # noqa: S101 - a part in hexadecimal
    try:
        crl = x509.load_der_x509_crl(data)
        _ = (crl.issuer, crl.last_update_utc, crl.next_update_utc, crl.signature_algorithm_oid)
    except (ValueError, TypeError, x509.InvalidVersion):
        return None
    return crl


def _issued_unix_s(crl: x509.CertificateRevocationList | None) -> int:
    return 0 if crl is None else int(crl.last_update_utc.timestamp())


def _malformed(detail: str) -> EvidenceMalformed:
    return EvidenceMalformed(detail, TdxCheck.COLLATERAL_FORMAT)
