"""The appraisal policy: what a relying party demands, in a closed and typed file without optional fields.

Every field is there. A check that shall not be made says so in its field's place: `{ waived = "the reason" }`.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias, TypeVar

from confide_protocol import cbor, labels
from confide_protocol.errors import PolicyError
from confide_protocol.settings import Settings, parse_toml
from pydantic import AwareDatetime, BaseModel, Discriminator, Field, StringConstraints, Tag, model_validator

from confide_attestation.snp.abi import Firmware, Product

SUITE_REQUIRED: Final = "mlkem768-x25519/hkdf-sha256/aes-256-gcm"
# KEM, KDF and AEAD (RFC 9180 identifiers) of each suite that a policy can name.
SUITES: Final[Mapping[str, tuple[int, int, int]]] = {SUITE_REQUIRED: (0x647A, 1, 2)}

Reason: TypeAlias = Annotated[str, StringConstraints(min_length=10, max_length=400)]
Level: TypeAlias = Annotated[int, Field(ge=0, le=255)]
Hex32: TypeAlias = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Hex48: TypeAlias = Annotated[str, StringConstraints(pattern="^[0-9a-f]{96}$")]
Hex64: TypeAlias = Annotated[str, StringConstraints(pattern="^[0-9a-f]{128}$")]
FirmwareVersion: TypeAlias = Annotated[str, StringConstraints(pattern=r"^\d{1,3}\.\d{1,3}\.\d{1,3}$")]

T = TypeVar("T")
# TOML has lists only; strictness stays on for what is in them. An empty list would be trivially satisfied.
NonEmpty: TypeAlias = Annotated[tuple[T, ...], Field(strict=False, min_length=1)]


class Waived(Settings):
    """A check that is not made, and why."""

    waived: Reason


def _shape(value: object) -> str:
    return "waived" if isinstance(value, Waived) or (isinstance(value, dict) and "waived" in value) else "set"


Waivable: TypeAlias = Annotated[Annotated[T, Tag("set")] | Annotated[Waived, Tag("waived")], Discriminator(_shape)]


class Session(Settings):
    """What the client demands of every exchange; never the server's choice."""

    suite: Literal["mlkem768-x25519/hkdf-sha256/aes-256-gcm"]
    shape: Literal["none", "bucketed"]


class ManifestPins(Settings):
    digests: NonEmpty[Hex32]


class Platform(Settings):
    """The profile says which registers together cover firmware, kernel, command line, root file system, settings.

    Both profiles of bare SEV-SNP pin `snp.measurements` (firmware, and the hashes of kernel, initrd and command
    line, or the whole IGVM image) and `snp.host_data` (settings given at launch).
    """

    profile: Literal["sev-snp/kernel-hashes", "sev-snp/igvm"]


class Gpu(Settings):
    count: Annotated[int, Field(ge=0, le=32)]


class MinTcb(Settings):
    bl: Level
    tee: Level
    snp: Level
    ucode: Level


class MinTcbTurin(MinTcb):
    fmc: Level


class GenoaRule(Settings):
    min_tcb: MinTcb


class TurinRule(Settings):
    min_tcb: MinTcbTurin


class MilanRule(Settings):
    """Milan's chip keys can be extracted in software (arXiv 2605.12990): accepting it needs a reason."""

    min_tcb: MinTcb
    accepted_because: Reason


def _rule(value: object) -> str:
    return "refused" if isinstance(value, str) else "accepted"


Rule: TypeAlias = Annotated[
    Annotated[T, Tag("accepted")] | Annotated[Literal["refused"], Tag("refused")], Discriminator(_rule)
]


class Products(Settings):
    """Each product is accepted from a least TCB on, or refused."""

    milan: Rule[MilanRule]
    genoa: Rule[GenoaRule]
    turin: Rule[TurinRule]

    @model_validator(mode="after")
    def _accepts_one(self) -> "Products":
        if self.milan == self.genoa == self.turin == "refused":
            raise ValueError("refuses every product; accept at least one")
        return self

    def rule(self, product: Product) -> MilanRule | GenoaRule | TurinRule | None:
        rule = {Product.MILAN: self.milan, Product.GENOA: self.genoa, Product.TURIN: self.turin}[product]
        return None if isinstance(rule, str) else rule


class GuestPolicy(Settings):
    """What the guest was launched with. Debugging and migration agents are refused always, by every policy."""

    allow_smt: bool
    allow_cxl: bool
    require_single_socket: bool
    require_mem_aes_256_xts: bool
    require_rapl_disabled: bool
    require_ciphertext_hiding: bool
    require_page_swap_disabled: bool


class Crl(Settings):
    max_age_s: Annotated[int, Field(ge=3600, le=400 * 86_400)]


class SnpPolicy(Settings):
    products: Products
    signers: NonEmpty[Literal["VCEK", "VLEK"]]
    measurements: NonEmpty[Hex48]
    host_data: Waivable[NonEmpty[Hex32]]
    id_key_digests: Waivable[NonEmpty[Hex48]]
    author_key_digests: Waivable[NonEmpty[Hex48]]
    chip_ids: Waivable[NonEmpty[Hex64]]
    crl: Waivable[Crl]
    vmpl: NonEmpty[Annotated[int, Field(ge=0, le=3)]]
    min_firmware: FirmwareVersion
    min_guest_svn: Annotated[int, Field(ge=0, lt=1 << 32)]
    alias_check: Waivable[Literal["required"]]
    mit_vector: Waivable[Annotated[int, Field(gt=0, lt=1 << 63)]]
    guest_policy: GuestPolicy

    @property
    def least_firmware(self) -> Firmware:
        return Firmware(*(int(part) for part in self.min_firmware.split(".")))


class AppraisalPolicy(Settings):
    """What both kinds of policy hold. Load one with `load_policy`."""

    id: Annotated[str, StringConstraints(pattern="^[a-z0-9][a-z0-9._-]{2,63}$")]
    serial: Annotated[int, Field(ge=1, lt=1 << 53)]
    not_after: AwareDatetime
    kind: Literal["hardware", "simulated"]
    session: Session
    freshness: Waivable[Literal["nonce"]]
    manifest: ManifestPins
    platform: Platform
    gpu: Gpu
    snp: SnpPolicy

    @property
    def not_after_unix_s(self) -> int:
        return int(self.not_after.timestamp())

    @property
    def suite(self) -> str:
        return self.session.suite

    @property
    def shape(self) -> str:
        return self.session.shape

    @property
    def digest(self) -> bytes:
        """SHA-256 of the content in deterministic CBOR: comments and order of the file do not count."""
        tree = self.model_dump(mode="json") | {"not_after": self.not_after_unix_s}
        return hashlib.sha256(cbor.encode({"purpose": labels.PURPOSE_POLICY, "policy": tree})).digest()


class HardwarePolicy(AppraisalPolicy):
    """Trusts AMD's packaged roots and nothing else."""

    kind: Literal["hardware"]


class SimulatedRoot(Settings):
    ark_sha256: Hex32


class SimulatedPolicy(AppraisalPolicy):
    """Trusts one simulated root and nothing else; useless unless the caller allows simulated hardware as well."""

    kind: Literal["simulated"]
    simulated: SimulatedRoot


class _Kind(BaseModel):
    kind: Literal["hardware", "simulated"]


def load_policy(data: bytes, file: str) -> AppraisalPolicy:
    """Read a policy file's bytes; `file` is its name in messages.

    Raises: PolicyError naming file, field and remedy (unknown key, missing field, empty list, wrong type).
    Does not check: serial and not-after, which `appraise` judges.
    """
    kind = parse_toml(data, _Kind, file, PolicyError).kind
    model = HardwarePolicy if kind == "hardware" else SimulatedPolicy
    return parse_toml(data, model, file, PolicyError)
