"""Write a policy file for one run on simulated hardware, as `confide demo` and tests need it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

NONE = "none"

_HEAD = """\
# Made for one run on SIMULATED HARDWARE. It proves nothing about any real machine.
id = "{policy_id}"
serial = {serial}
not_after = {not_after:%Y-%m-%dT%H:%M:%SZ}
kind = "simulated"
freshness = "nonce"
{no_gpu}
[simulated]
amd_ark_sha256 = "{amd_ark}"
intel_root_sha256 = "{intel_root}"
nvidia_device_root_spki_sha256 = "{nvidia_device_root}"
nvidia_rim_root_spki_sha256 = "{nvidia_rim_root}"

[session]
suite = "mlkem768-x25519/hkdf-sha256/aes-256-gcm"
shape = "{shape}"

[manifest]
digests = ["{manifest_digest}"]
"""

_SNP = """
[platform]
profile = "sev-snp/kernel-hashes"

[platform.snp]
signers = ["VCEK"]
measurements = ["{measurement}"]
host_data = ["{host_data}"]
id_key_digests = {{ waived = "simulated guests have no identity block" }}
author_key_digests = {{ waived = "simulated guests have no identity block" }}
chip_ids = {{ waived = "a simulated chip is made anew on each run" }}
crl = {{ waived = "a simulated root publishes no revocation list" }}
vmpl = [0]
min_firmware = "1.55.0"
min_guest_svn = 0
alias_check = "required"
mit_vector = {{ waived = "simulated mitigations mitigate nothing" }}

[platform.snp.products]
milan = "refused"
genoa = {{ min_tcb = {{ bl = 0, tee = 0, snp = 0, ucode = 0 }}, rises = "never" }}
turin = {{ min_tcb = {{ fmc = 0, bl = 0, tee = 0, snp = 0, ucode = 0 }}, rises = "never" }}

[platform.snp.guest_policy]
allow_smt = true
allow_cxl = false
require_single_socket = false
require_mem_aes_256_xts = false
require_rapl_disabled = false
require_ciphertext_hiding = false
require_page_swap_disabled = false
"""

_TDX = """
[platform]
profile = "tdx/direct"

[platform.tdx]
min_tcb_evaluation_number = 1
max_collateral_age_s = 2678400
max_root_crl_age_s = 2678400
tcb_grace = "refused"
ppids = {{ waived = "a simulated platform is made anew on each run" }}
mr_seam = {{ waived = "a simulated TDX module has no release" }}
mr_td = ["{mr_td}"]
rtmr0 = ["{rtmr0}"]
rtmr1 = ["{rtmr1}"]
rtmr2 = ["{rtmr2}"]
rtmr3 = ["{rtmr3}"]
mr_config_id = {{ waived = "simulated guests are given no settings at launch" }}
mr_owner = {{ waived = "simulated guests are given no settings at launch" }}
mr_owner_config = {{ waived = "simulated guests are given no settings at launch" }}
xfam = ["e702060000000000"]
platform_configuration = {{ allow_smt = true, allow_dynamic_platform = true, allow_cached_keys = true }}
td_attributes = {{ allow_pks = false, allow_key_locker = false, allow_perfmon = false, allow_lass = false }}
"""

_GPU = """
[gpu]
gpus = {count}
switches = 0
architectures = ["HOPPER"]
modes = ["{mode}"]
min_driver = "{driver}"
firmware = ["{firmware}"]
ueids = {{ waived = "a simulated GPU is made anew on each run" }}
fwid = "required"
revocation = {{ max_age_s = 2592000, rim_hold = "refused" }}
"""


@dataclass(frozen=True)
class SimulatedGpus:
    """So many simulated Hopper GPUs, as a policy pins them."""

    count: int
    device_root_spki_sha256: bytes
    rim_root_spki_sha256: bytes
    driver: str
    firmware: str


def simulated_policy(
    *,
    ark_sha256: bytes,
    measurement: bytes,
    manifest_digest: bytes,
    not_after_unix_s: int,
    policy_id: str = "confide.demo.simulated",
    serial: int = 1,
    shape: str = "bucketed",
    host_data: bytes = bytes(32),
    gpus: SimulatedGpus | None = None,
) -> str:
    """Return the text of a policy for simulated SEV-SNP; read it with `load_policy(text.encode(), name)`."""
    return (
        _head(policy_id, serial, not_after_unix_s, shape, manifest_digest, gpus, amd_ark=ark_sha256.hex())
        + _SNP.format(measurement=measurement.hex(), host_data=host_data.hex())
        + _gpu(gpus)
    )


def simulated_tdx_policy(
    *,
    root_sha256: bytes,
    mr_td: bytes,
    rtmrs: Sequence[bytes],
    manifest_digest: bytes,
    not_after_unix_s: int,
    policy_id: str = "confide.demo.simulated",
    serial: int = 1,
    shape: str = "bucketed",
    gpus: SimulatedGpus | None = None,
) -> str:
    """Return the text of a policy for simulated TDX; `rtmrs` are the four runtime registers."""
    registers = {f"rtmr{number}": value.hex() for number, value in enumerate(rtmrs)}
    return (
        _head(policy_id, serial, not_after_unix_s, shape, manifest_digest, gpus, intel_root=root_sha256.hex())
        + _TDX.format(mr_td=mr_td.hex(), **registers)
        + _gpu(gpus)
    )


def _head(
    policy_id: str,
    serial: int,
    not_after_unix_s: int,
    shape: str,
    manifest_digest: bytes,
    gpus: SimulatedGpus | None,
    *,
    amd_ark: str = NONE,
    intel_root: str = NONE,
) -> str:
    return _HEAD.format(
        policy_id=policy_id,
        serial=serial,
        not_after=datetime.fromtimestamp(not_after_unix_s, UTC),
        no_gpu='gpu = "none"\n' if gpus is None else "",
        amd_ark=amd_ark,
        intel_root=intel_root,
        nvidia_device_root=NONE if gpus is None else gpus.device_root_spki_sha256.hex(),
        nvidia_rim_root=NONE if gpus is None else gpus.rim_root_spki_sha256.hex(),
        shape=shape,
        manifest_digest=manifest_digest.hex(),
    )


def _gpu(gpus: SimulatedGpus | None) -> str:
    if gpus is None:
        return ""
    mode = "SPT" if gpus.count == 1 else "MPT"
    return _GPU.format(count=gpus.count, mode=mode, driver=gpus.driver, firmware=gpus.firmware)
