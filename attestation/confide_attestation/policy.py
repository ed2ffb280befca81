"""The appraisal policy: what a relying party demands, in a closed and typed file without optional fields.

Every field is there. A check that shall not be made says so in its field's place: `{ waived = "the reason" }`.
What each room demands of its evidence stands in that room's own `policy.py`.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

from confide_protocol import cbor, labels
from confide_protocol.errors import PolicyError
from confide_protocol.settings import Settings, parse_toml
from pydantic import BaseModel, Discriminator, Field, StringConstraints, Tag, model_validator

from confide_attestation.eventlog.policy import DstackPolicy
from confide_attestation.evidence import CpuKind
from confide_attestation.nvidia.policy import GpuPolicy
from confide_attestation.policy_types import Hex32, Moment, NonEmpty, Waived
from confide_attestation.snp.policy import SnpPolicy
from confide_attestation.tdx.policy import TdxPolicy
from confide_attestation.vtpm.policy import VtpmPolicy

SUITE_REQUIRED: Final = "mlkem768-x25519/hkdf-sha256/aes-256-gcm"
# KEM, KDF and AEAD (RFC 9180 identifiers) of each suite that a policy can name.
SUITES: Final[Mapping[str, tuple[int, int, int]]] = {SUITE_REQUIRED: (0x647A, 1, 2)}


class Session(Settings):
    """What the client demands of every exchange; never the server's choice."""

    suite: Literal["mlkem768-x25519/hkdf-sha256/aes-256-gcm"]
    shape: Literal["none", "bucketed"]


class ManifestPins(Settings):
    digests: NonEmpty[Hex32]


class Epoch(Settings):
    """Evidence may answer a public value that nobody could foresee, published at most so long ago."""

    epoch_max_age_s: Annotated[int, Field(ge=1, le=86_400)]


def _freshness(value: object) -> str:
    if isinstance(value, Waived) or (isinstance(value, dict) and "waived" in value):
        return "waived"
    return "nonce" if isinstance(value, str) else "epoch"


Freshness: TypeAlias = Annotated[
    Annotated[Literal["nonce"], Tag("nonce")] | Annotated[Epoch, Tag("epoch")] | Annotated[Waived, Tag("waived")],
    Discriminator(_freshness),
]


class SnpPlatform(Settings):
    """Bare SEV-SNP: `measurements` pins firmware, and kernel, initrd and command line, or the whole IGVM image;
    `host_data` pins settings given at launch.
    """

    cpu_kind: ClassVar = CpuKind.SEV_SNP
    event_logs: ClassVar[tuple[str, ...]] = ()
    profile: Literal["sev-snp/kernel-hashes", "sev-snp/igvm"]
    snp: SnpPolicy


class _PinnedTdx(Settings):
    """TDX whose four registers are all pinned."""

    cpu_kind: ClassVar = CpuKind.TDX
    event_logs: ClassVar[tuple[str, ...]] = ()
    tdx: TdxPolicy

    @model_validator(mode="after")
    def _pins_rtmr3(self) -> "_PinnedTdx":
        if isinstance(self.tdx.rtmr3, Waived):
            raise ValueError(  # noqa: TRY004 - pydantic's own convention
                "tdx.rtmr3 cannot be waived in this profile; pin zeros if nothing extends it"
            )
        return self


class TdxPlatform(_PinnedTdx):
    """Bare TDX: MRTD pins firmware, RTMR0 its configuration, RTMR1 and RTMR2 kernel, command line and initrd."""

    profile: Literal["tdx/direct"]


class GcpPlatform(_PinnedTdx):
    """TDX on Google's cloud: as bare, and the CCEL replays into the registers."""

    event_logs: ClassVar[tuple[str, ...]] = ("ccel",)
    profile: Literal["tdx/gcp"]


class DstackPlatform(Settings):
    """TDX under dstack: MRTD and RTMR0 to 2 pin the image; the log that makes RTMR3 names the application."""

    cpu_kind: ClassVar = CpuKind.TDX
    event_logs: ClassVar[tuple[str, ...]] = ("dstack",)
    profile: Literal["tdx/dstack"]
    tdx: TdxPolicy
    dstack: DstackPolicy


class AzureSnpPlatform(Settings):
    """SEV-SNP on Azure: `measurements` pins the paravisor, PCRs pin all that it started."""

    cpu_kind: ClassVar = CpuKind.AZURE_SEV_SNP
    event_logs: ClassVar[tuple[str, ...]] = ()
    profile: Literal["azure/sev-snp"]
    snp: SnpPolicy
    vtpm: VtpmPolicy


class AzureTdxPlatform(_PinnedTdx):
    """TDX on Azure: MRTD pins the paravisor, PCRs pin all that it started; RTMRs are zero."""

    cpu_kind: ClassVar = CpuKind.AZURE_TDX
    profile: Literal["azure/tdx"]
    vtpm: VtpmPolicy


Platform: TypeAlias = SnpPlatform | TdxPlatform | GcpPlatform | DstackPlatform | AzureSnpPlatform | AzureTdxPlatform


def _gpu(value: object) -> str:
    return "none" if isinstance(value, str) else "judged"


class SimulatedRoots(Settings):
    """The roots of simulated vendors, each by SHA-256; with "none" nothing of that vendor is trusted."""

    amd_ark_sha256: Hex32 | Literal["none"]
    intel_root_sha256: Hex32 | Literal["none"]
    nvidia_device_root_spki_sha256: Hex32 | Literal["none"]
    nvidia_rim_root_spki_sha256: Hex32 | Literal["none"]


class AppraisalPolicy(Settings):
    """What both kinds of policy hold. Load one with `load_policy`."""

    id: Annotated[str, StringConstraints(pattern="^[a-z0-9][a-z0-9._-]{2,63}$")]
    serial: Annotated[int, Field(ge=1, lt=1 << 53)]
    not_after: Moment
    kind: Literal["hardware", "simulated"]
    session: Session
    freshness: Freshness
    manifest: ManifestPins
    platform: Annotated[Platform, Field(discriminator="profile")]
    gpu: Annotated[
        Annotated[GpuPolicy, Tag("judged")] | Annotated[Literal["none"], Tag("none")], Discriminator(_gpu)
    ]

    @property
    def platform_name(self) -> str:
        """What the manifest must call the machine."""
        name = "dstack" if isinstance(self.platform, DstackPlatform) else self.platform.cpu_kind.value
        return f"simulated-{name}" if self.kind == "simulated" else name

    @property
    def snp(self) -> SnpPolicy:
        """What is demanded of SEV-SNP. Raises: PolicyError."""
        if isinstance(self.platform, SnpPlatform | AzureSnpPlatform):
            return self.platform.snp
        raise self._silent("SEV-SNP")

    @property
    def tdx(self) -> TdxPolicy:
        """What is demanded of TDX. Raises: PolicyError."""
        if isinstance(self.platform, SnpPlatform | AzureSnpPlatform):
            raise self._silent("TDX")
        return self.platform.tdx

    @property
    def azure(self) -> AzureSnpPlatform | AzureTdxPlatform:
        """What is demanded of a machine on Azure. Raises: PolicyError."""
        if isinstance(self.platform, AzureSnpPlatform | AzureTdxPlatform):
            return self.platform
        raise self._silent("Azure's vTPM")

    @property
    def gpus(self) -> GpuPolicy:
        """What is demanded of GPUs. Raises: PolicyError."""
        if self.gpu == "none":
            raise PolicyError(self.id, "gpu", "demands none; set what is demanded of the GPUs")
        return self.gpu

    def _silent(self, of: str) -> PolicyError:
        return PolicyError(self.id, "platform.profile", f"{self.platform.profile} says nothing of {of}")

    @property
    def roots(self) -> SimulatedRoots | None:
        """The simulated roots that alone are trusted; None: the packaged ones of the vendors."""
        return None

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
        tree = self.model_dump(mode="json")
        return hashlib.sha256(cbor.encode({"purpose": labels.PURPOSE_POLICY, "policy": tree})).digest()


class HardwarePolicy(AppraisalPolicy):
    """Trusts the vendors' packaged roots and nothing else."""

    kind: Literal["hardware"]


class SimulatedPolicy(AppraisalPolicy):
    """Trusts simulated roots and nothing else; useless unless the caller allows simulated hardware as well."""

    kind: Literal["simulated"]
    simulated: SimulatedRoots

    @property
    def roots(self) -> SimulatedRoots | None:
        return self.simulated


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
