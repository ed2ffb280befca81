"""What a policy demands of a machine's GPUs and switches."""

from typing import Annotated, Literal, TypeAlias

from confide_protocol.settings import Settings
from pydantic import Field, StringConstraints

from confide_attestation.policy_types import NonEmpty, Reason, Rule, Waivable

Version: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{1,4}(\.[0-9A-Fa-f]{1,4}){1,5}$")]
Ueid: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,64}$")]


class Hold(Settings):
    """NVIDIA puts a manifest's certificate on hold when a driver has a known fault; that needs a reason."""

    accepted_because: Reason


class Revocation(Settings):
    """Every certificate needs NVIDIA's answer, at most so old."""

    max_age_s: Annotated[int, Field(ge=60, le=30 * 86_400)]
    rim_hold: Rule[Hold]


class GpuPolicy(Settings):
    """Exactly so many devices, all of them judged by NVIDIA's manifests for their driver and firmware."""

    gpus: Annotated[int, Field(ge=1, le=32)]
    switches: Annotated[int, Field(ge=0, le=16)]
    architectures: NonEmpty[Literal["HOPPER", "BLACKWELL"]]
    modes: NonEmpty[Literal["SPT", "MPT", "PPCIE"]]
    min_driver: Version
    firmware: Waivable[NonEmpty[Version]]
    ueids: Waivable[NonEmpty[Ueid]]
    fwid: Waivable[Literal["required"]]
    revocation: Waivable[Revocation]
