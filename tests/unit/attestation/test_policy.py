"""The policy file: closed, typed, without optional fields, every fault named."""

from pathlib import Path

import pytest
from confide_attestation.policy import HardwarePolicy, SimulatedPolicy, load_policy
from confide_attestation.policy_text import simulated_policy
from confide_protocol.errors import PolicyError

from tests.fakes.tdx_scene import TdxScene

EXAMPLE = (Path(__file__).resolve().parents[3] / "deploy/policies/example.toml").read_text()
SIMULATED = simulated_policy(
    ark_sha256=bytes(32), measurement=bytes(48), manifest_digest=bytes(32), not_after_unix_s=1_800_000_000
)


def load(text: str) -> object:
    return load_policy(text.encode(), "policy.toml")


def test_example_and_simulated_policies_load() -> None:
    """What we ship is a policy, each of its kind."""
    example, simulated = load(EXAMPLE), load(SIMULATED)
    assert isinstance(example, HardwarePolicy)
    assert isinstance(simulated, SimulatedPolicy)
    assert (simulated.id, simulated.serial) == ("confide.demo.simulated", 1)
    assert simulated.not_after_unix_s == 1_800_000_000
    assert (simulated.suite, simulated.shape) == ("mlkem768-x25519/hkdf-sha256/aes-256-gcm", "bucketed")


FAULTS = {
    "unknown key": ("vmpl = [0]", "vmpl = [0]\nvmlp = [0]", "platform.snp.vmlp"),
    "unknown key at the top": ("serial = 1", "serial = 1\nextra = 1", "extra"),
    "missing field": ("vmpl = [0]", "", "platform.snp.vmpl"),
    "empty list": ("vmpl = [0]", "vmpl = []", "platform.snp.vmpl"),
    "empty pin list": ('signers = ["VCEK"]', "signers = []", "platform.snp.signers"),
    "wrong type": ("serial = 1", 'serial = "1"', "serial"),
    "zero serial": ("serial = 1", "serial = 0", "serial"),
    "boolean as number": ("serial = 1", "serial = true", "serial"),
    "kind unknown": ('kind = "simulated"', 'kind = "any"', "kind"),
    "time without zone": ("2027-01-15T08:00:00Z", "2027-01-15T08:00:00", "not_after"),
    "time as text": ("2027-01-15T08:00:00Z", '"2027-01-15T08:00:00Z"', "not_after"),
    "short digest": ('digests = ["00', 'digests = ["', "manifest.digests"),
    "upper-case digest": ('digests = ["00', 'digests = ["AA', "manifest.digests"),
    "manifest unpinned": ("digests = [", "digest = [", "manifest.digests"),
    "measurement waived": (
        "measurements = [",
        "measurements = { waived = 'any at all' } #[",
        "platform.snp.measurements",
    ),
    "waiver without reason": (
        'waived = "simulated mitigations mitigate nothing"',
        'waived = ""',
        "platform.snp.mit_vector",
    ),
    "milan without reason": (
        'milan = "refused"',
        'milan = { min_tcb = { bl = 0, tee = 0, snp = 0, ucode = 0 }, rises = "never" }',
        "platform.snp.products.milan",
    ),
    "turin without fmc": ("fmc = 0, ", "", "platform.snp.products.turin"),
    "genoa with fmc": (
        "genoa = { min_tcb = { bl",
        "genoa = { min_tcb = { fmc = 0, bl",
        "platform.snp.products.genoa",
    ),
    "unknown suite": ("mlkem768-x25519/", "x25519/", "session.suite"),
    "unknown shape": ('shape = "bucketed"', 'shape = "constant"', "session.shape"),
    "unknown profile": ("sev-snp/kernel-hashes", "sev-snp", "platform"),
    "firmware text": ('"1.55.0"', '"1.55"', "platform.snp.min_firmware"),
    "root missing": ("[simulated]\namd_ark_sha256", "[simulated]\n#", "simulated.amd_ark_sha256"),
    "not TOML": ("serial = 1", "serial", "file"),
}


@pytest.mark.parametrize(("old", "new", "field"), FAULTS.values(), ids=FAULTS.keys())
def test_fault_is_a_policy_error_that_names_file_and_field(old: str, new: str, field: str) -> None:
    """Every fault is one line with file, field and remedy."""
    assert old in SIMULATED
    with pytest.raises(PolicyError) as caught:
        load(SIMULATED.replace(old, new))
    message = str(caught.value)
    assert message.startswith(f"policy.toml: {field}")
    assert "\n" not in message


def test_policy_that_accepts_no_product_is_refused() -> None:
    """A policy that can accept nothing is a mistake, not a strict policy."""
    text = SIMULATED.replace("genoa = {", 'genoa = "refused" # {').replace("turin = {", 'turin = "refused" # {')
    with pytest.raises(PolicyError, match=r"snp\.products"):
        load(text)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"", b"x" * (300 * 1024)])
def test_bytes_that_are_no_policy_are_a_policy_error(data: bytes) -> None:
    """Binary, empty and oversized files have their one line too."""
    with pytest.raises(PolicyError):
        load_policy(data, "policy.toml")


def test_digest_names_the_content_and_not_the_file() -> None:
    """Comments, order and the writing of the same instant do not count; any value does."""
    one = load_policy(SIMULATED.encode(), "a.toml")
    moved = "serial = 1\n" + SIMULATED.replace("serial = 1\n", "").replace("T08:00:00Z", "T09:00:00+01:00")
    assert load_policy(moved.encode(), "b.toml").digest == one.digest
    assert load_policy(SIMULATED.replace("serial = 1", "serial = 2").encode(), "a.toml").digest != one.digest


@pytest.mark.parametrize("written", ["2027-03-01T01:00:00+01:00", "2027-03-01T00:00:00.000Z"])
def test_every_time_is_digested_as_unix_seconds(written: str) -> None:
    """That a least TCB rises at, that a grace lasts until: equal moments are equal policies."""

    def snp(at: str) -> bytes:
        later = f"{{ at = {at}, min_tcb = {{ bl = 9, tee = 0, snp = 0, ucode = 0 }} }}"
        return load(SIMULATED.replace('rises = "never" }\nturin', f"rises = {later} }}\nturin")).digest

    def tdx(until: str) -> bytes:
        scene = TdxScene()
        grace = f'statuses = ["OutOfDate"], advisories = ["INTEL-SA-00001"], until = {until}'
        scene.edit_policy('tcb_grace = "refused"', f'tcb_grace = {{ {grace}, because = "being updated" }}')
        return scene.build()[2].digest

    for digest in (snp, tdx):
        assert digest(written) == digest("2027-03-01T00:00:00Z") != digest("2027-03-01T00:00:01Z")
