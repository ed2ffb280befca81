"""Write a policy file for one run on simulated hardware, as `confide demo` and tests need it."""

from datetime import UTC, datetime

_SIMULATED = """\
# Made for one run on SIMULATED HARDWARE. It proves nothing about any real machine.
id = "{policy_id}"
serial = {serial}
not_after = {not_after:%Y-%m-%dT%H:%M:%SZ}
kind = "simulated"
freshness = "nonce"
gpu = "none"

[simulated]
amd_ark_sha256 = "{ark_sha256_hex}"
intel_root_sha256 = "none"
nvidia_device_root_spki_sha256 = "none"
nvidia_rim_root_spki_sha256 = "none"

[session]
suite = "mlkem768-x25519/hkdf-sha256/aes-256-gcm"
shape = "{shape}"

[manifest]
digests = ["{manifest_digest_hex}"]

[platform]
profile = "sev-snp/kernel-hashes"

[platform.snp]
signers = ["VCEK"]
measurements = ["{measurement_hex}"]
host_data = ["{host_data_hex}"]
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
genoa = {{ min_tcb = {{ bl = 0, tee = 0, snp = 0, ucode = 0 }} }}
turin = {{ min_tcb = {{ fmc = 0, bl = 0, tee = 0, snp = 0, ucode = 0 }} }}

[platform.snp.guest_policy]
allow_smt = true
allow_cxl = false
require_single_socket = false
require_mem_aes_256_xts = false
require_rapl_disabled = false
require_ciphertext_hiding = false
require_page_swap_disabled = false
"""


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
) -> str:
    """Return the text of a policy of kind `simulated`; read it with `load_policy(text.encode(), name)`."""
    return _SIMULATED.format(
        policy_id=policy_id,
        serial=serial,
        not_after=datetime.fromtimestamp(not_after_unix_s, UTC),
        ark_sha256_hex=ark_sha256.hex(),
        shape=shape,
        manifest_digest_hex=manifest_digest.hex(),
        measurement_hex=measurement.hex(),
        host_data_hex=host_data.hex(),
    )
