"""What a policy demands of an SEV-SNP report."""

from typing import Annotated, Literal, TypeAlias

from confide_protocol.settings import Settings
from pydantic import Field, StringConstraints, model_validator

from confide_attestation.policy_types import (
    Hex32,
    Hex48,
    Hex64,
    Level,
    Moment,
    NonEmpty,
    Reason,
    Rises,
    Rule,
    Waivable,
)
from confide_attestation.snp.abi import Firmware, Product

FirmwareVersion: TypeAlias = Annotated[str, StringConstraints(pattern=r"^\d{1,3}\.\d{1,3}\.\d{1,3}$")]


class MinTcb(Settings):
    bl: Level
    tee: Level
    snp: Level
    ucode: Level


class MinTcbTurin(MinTcb):
    fmc: Level


class Rise(Settings):
    """From this time on, more is demanded: time for operators to update, set beforehand."""

    at: Moment
    min_tcb: MinTcb


class RiseTurin(Settings):
    at: Moment
    min_tcb: MinTcbTurin


class GenoaRule(Settings):
    min_tcb: MinTcb
    rises: Rises[Rise]

    def least(self, now_unix_s: int) -> MinTcb:
        """Return the levels that are demanded at this time."""
        return self.min_tcb if isinstance(self.rises, str) else _least(self.min_tcb, self.rises, now_unix_s)


class TurinRule(Settings):
    min_tcb: MinTcbTurin
    rises: Rises[RiseTurin]

    def least(self, now_unix_s: int) -> MinTcb:
        """Return the levels that are demanded at this time."""
        return self.min_tcb if isinstance(self.rises, str) else _least(self.min_tcb, self.rises, now_unix_s)


class MilanRule(GenoaRule):
    """Milan's chip keys can be extracted in software (arXiv 2605.12990): accepting it needs a reason."""

    accepted_because: Reason


def _least(now: MinTcb, rise: Rise | RiseTurin, now_unix_s: int) -> MinTcb:
    return now if now_unix_s < rise.at.timestamp() else rise.min_tcb


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
