"""What a policy demands of a machine that its vTPM measured (Azure)."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias

from confide_protocol.settings import Settings
from pydantic import StringConstraints, model_validator

from confide_attestation.policy_types import Hex32, Hex64, NonEmpty, Waivable

PcrNumber: TypeAlias = Annotated[str, StringConstraints(pattern=r"^(1?[0-9]|2[0-3])$")]
# Firmware, boot loader or unified kernel image, secure boot's keys; then kernel, initrd and command line: as GRUB
# measures them (8, 9), or as systemd's stub does (11, 12). UEFI PC Client Platform Firmware Profile, section 3.3.4.
ALWAYS: Final = frozenset({0, 4, 7})
BY_LOADER: Final = (frozenset({8, 9}), frozenset({11, 12}))


class VtpmPolicy(Settings):
    """`pcrs` names each PCR that must be covered by the quote, and the values allowed of it."""

    pcrs: Mapping[PcrNumber, NonEmpty[Hex32]]
    secure_boot: Waivable[Literal["required"]]
    console: Waivable[Literal["refused"]]
    user_data: Waivable[Hex64]

    @model_validator(mode="after")
    def _covers_the_machine(self) -> "VtpmPolicy":
        pinned = {int(pcr) for pcr in self.pcrs}
        if not pinned >= ALWAYS or not any(pinned >= by_loader for by_loader in BY_LOADER):
            raise ValueError("pcrs: pin 0, 4 and 7, and 8 and 9 (GRUB) or 11 and 12 (unified kernel image)")
        return self
