"""What a policy demands of a TDX quote."""

from typing import Annotated, Literal, TypeAlias

from confide_protocol.settings import Settings
from pydantic import Field, StringConstraints

from confide_attestation.policy_types import Hex8, Hex16, Hex48, Moment, NonEmpty, Reason, Rule, Waivable

Advisory: TypeAlias = Annotated[str, StringConstraints(pattern=r"^INTEL-SA-\d{5}$")]


class Grace(Settings):
    """Accept other statuses than UpToDate for a while, for a reason. Revoked is refused by every policy."""

    statuses: NonEmpty[
        Literal[
            "SWHardeningNeeded",
            "ConfigurationNeeded",
            "ConfigurationAndSWHardeningNeeded",
            "OutOfDate",
            "OutOfDateConfigurationNeeded",
        ]
    ]
    advisories: NonEmpty[Advisory]
    until: Moment
    because: Reason

    @property
    def until_unix_s(self) -> int:
        return int(self.until.timestamp())


class PlatformConfiguration(Settings):
    """What the platform's PCK certificate may say of it; one that says nothing of a thing is taken to have it."""

    allow_smt: bool
    allow_dynamic_platform: bool
    allow_cached_keys: bool


class TdAttributes(Settings):
    """What the TD may have been launched with. Debugging, migration and service TDs are refused by every policy."""

    allow_pks: bool
    allow_key_locker: bool
    allow_perfmon: bool
    allow_lass: bool


class TdxPolicy(Settings):
    """`max_collateral_age_s` is of TCB info, QE identity and the PCK list, which Intel issues anew each day; the
    root's list is issued once a year. `xfam` is as quotes have it: eight bytes, the lowest first.
    """

    min_tcb_evaluation_number: Annotated[int, Field(ge=1, lt=1 << 31)]
    max_collateral_age_s: Annotated[int, Field(ge=3600, le=400 * 86_400)]
    max_root_crl_age_s: Annotated[int, Field(ge=3600, le=800 * 86_400)]
    tcb_grace: Rule[Grace]
    ppids: Waivable[NonEmpty[Hex16]]
    mr_seam: Waivable[NonEmpty[Hex48]]
    mr_td: NonEmpty[Hex48]
    rtmr0: NonEmpty[Hex48]
    rtmr1: NonEmpty[Hex48]
    rtmr2: NonEmpty[Hex48]
    rtmr3: Waivable[NonEmpty[Hex48]]
    mr_config_id: Waivable[NonEmpty[Hex48]]
    mr_owner: Waivable[NonEmpty[Hex48]]
    mr_owner_config: Waivable[NonEmpty[Hex48]]
    xfam: NonEmpty[Hex8]
    platform_configuration: PlatformConfiguration
    td_attributes: TdAttributes

    @property
    def grace(self) -> Grace | None:
        return self.tcb_grace if isinstance(self.tcb_grace, Grace) else None
