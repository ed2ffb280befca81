"""What a policy demands of a machine's GPUs and switches."""

from typing import Annotated, Literal, TypeAlias

from confide_protocol.settings import Settings
from pydantic import Field, StringConstraints, model_validator

from confide_attestation.nvidia.topology import PPCIE_GPUS, PPCIE_SWITCHES
from confide_attestation.policy_types import NonEmpty, Reason, Rule, Waivable

DriverVersion: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9]{3}(\.[0-9]{1,3}){1,2}$")]
FirmwareVersion: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9A-F]{2}(\.[0-9A-F]{2}){4}$")]
Ueid: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,64}$")]


class Hold(Settings):
    """NVIDIA puts a manifest's certificate on hold when a driver has a known fault; that needs a reason."""

    accepted_because: Reason


class Revocation(Settings):
    """Every certificate needs NVIDIA's answer, at most so old. A device's is never accepted on hold."""

    max_age_s: Annotated[int, Field(ge=60, le=30 * 86_400)]
    rim_hold: Rule[Hold]


class GpuPolicy(Settings):
    """Exactly so many devices, all of them judged by NVIDIA's manifests for their driver and firmware.

    `firmware` are the versions accepted of any device (VBIOS, or BIOS of a switch), `ueids` the serial numbers of
    the leaf certificates, which name a device with its boot firmware.
    """

    gpus: Annotated[int, Field(ge=1, le=32)]
    switches: Annotated[int, Field(ge=0, le=16)]
    architectures: NonEmpty[Literal["HOPPER", "BLACKWELL"]]
    modes: NonEmpty[Literal["SPT", "MPT", "PPCIE"]]
    min_driver: DriverVersion
    firmware: Waivable[NonEmpty[FirmwareVersion]]
    ueids: Waivable[NonEmpty[Ueid]]
    fwid: Waivable[Literal["required"]]
    revocation: Waivable[Revocation]

    @model_validator(mode="after")
    def _whole_machine(self) -> "GpuPolicy":
        protected = "PPCIE" in self.modes
        if protected and set(self.modes) != {"PPCIE"}:
            raise ValueError("modes: PPCIE is a machine's only mode, it stands alone")
        if protected and (self.gpus, self.switches) != (PPCIE_GPUS, PPCIE_SWITCHES):
            raise ValueError(f"modes: PPCIE needs gpus = {PPCIE_GPUS} and switches = {PPCIE_SWITCHES}")
        if self.switches and not protected:
            raise ValueError('switches: only those of modes = ["PPCIE"] are attested; set switches = 0')
        return self
