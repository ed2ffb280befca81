"""What a policy demands of a machine that its vTPM measured (Azure)."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias

from confide_protocol.settings import Settings
from pydantic import StringConstraints, model_validator

from confide_attestation.policy_types import Hex32, Hex64, NonEmpty, Waivable

PcrNumber: TypeAlias = Annotated[str, StringConstraints(pattern=r"^(1?[0-9]|2[0-3])$")]
# Firmware, boot loader or unified kernel image, secure boot's keys (TCG PC Client Platform Firmware Profile 3.3.4);
# then kernel, initrd and command line, of which GRUB (8, 9), the kernel's own stub (9), systemd-boot and its stub
# (11, 12) each measure a part: Azure's images mix them, so none of the four may be left open.
COVERING: Final = frozenset({0, 4, 7, 8, 9, 11, 12})


class VtpmPolicy(Settings):
    """`pcrs` names each PCR that must be covered by the quote, and the values allowed of it.

    A PCR that nothing was measured into is pinned as well: to zeros.
    """

    pcrs: Mapping[PcrNumber, NonEmpty[Hex32]]
    secure_boot: Waivable[Literal["required"]]
    console: Waivable[Literal["refused"]]
    user_data: Waivable[Hex64]

    @model_validator(mode="after")
    def _covers_the_machine(self) -> "VtpmPolicy":
        open_pcrs = sorted(COVERING - {int(pcr) for pcr in self.pcrs})
        if open_pcrs:
            named = ", ".join(map(str, open_pcrs))
            raise ValueError(f"pcrs: pin {named} too, to zeros where nothing is measured into one")
        return self
