"""Write policies for TDX from the values that evidence has."""

from collections.abc import Mapping

ZEROS = bytes(48).hex()
_POLICY = """\
id = "test.tdx"
serial = 1
not_after = 2027-06-30T00:00:00Z
kind = "{kind}"
freshness = "nonce"
gpu = "none"
{simulated}
[session]
suite = "mlkem768-x25519/hkdf-sha256/aes-256-gcm"
shape = "bucketed"

[manifest]
digests = ["{manifest_sha256}"]

[platform]
profile = "{profile}"
{dstack}
[platform.tdx]
min_tcb_evaluation_number = 18
max_collateral_age_s = 86400
max_root_crl_age_s = 172800
tcb_grace = "refused"
ppids = ["{ppid}"]
mr_seam = ["{mr_seam}"]
mr_td = ["{mr_td}"]
rtmr0 = ["{rtmr0}"]
rtmr1 = ["{rtmr1}"]
rtmr2 = ["{rtmr2}"]
rtmr3 = {rtmr3}
mr_config_id = ["{mr_config_id}"]
mr_owner = ["{zeros}"]
mr_owner_config = ["{zeros}"]
xfam = ["{xfam}"]

[platform.tdx.platform_configuration]
allow_smt = true
allow_dynamic_platform = true
allow_cached_keys = true

[platform.tdx.td_attributes]
allow_pks = false
allow_key_locker = false
allow_perfmon = false
allow_lass = false
"""
_SIMULATED = """
[simulated]
amd_ark_sha256 = "none"
intel_root_sha256 = "{root_sha256}"
nvidia_device_root_spki_sha256 = "none"
nvidia_rim_root_spki_sha256 = "none"
"""
_DSTACK = """
[platform.dstack]
compose_hashes = ["{compose_hash}"]
"""


def tdx_policy(
    profile: str,
    values: Mapping[str, str],
    *,
    manifest_sha256: str = "00" * 32,
    root_sha256: str | None = None,
    compose_hash: str | None = None,
) -> str:
    """Return a policy that pins `values`: of simulated hardware if a root is named, of dstack if an application is.

    With an application RTMR3 is waived, since the log of it is what the policy pins.
    """
    dstack = "" if compose_hash is None else _DSTACK.format(compose_hash=compose_hash)
    waived = '{ waived = "the event log names the application" }'
    return _POLICY.format(
        kind="hardware" if root_sha256 is None else "simulated",
        simulated="" if root_sha256 is None else _SIMULATED.format(root_sha256=root_sha256),
        manifest_sha256=manifest_sha256,
        profile=profile,
        dstack=dstack,
        zeros=ZEROS,
        **{**values, "rtmr3": f'["{values["rtmr3"]}"]' if compose_hash is None else waived},
    )
