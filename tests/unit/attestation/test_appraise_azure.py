"""Azure machines in one decision: hardware, paravisor, vTPM and the keyset that the TPM's quote is bound to."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from confide_attestation.checks.ids import BINDING_CHECKS, POLICY_CHECKS
from confide_attestation.evidence import CpuEvidence, CpuKind, Endorsements
from confide_attestation.policy import load_policy
from confide_attestation.result import AttestationResult, Outcome, Verdict
from confide_attestation.simulated.azure import make_ak
from confide_attestation.snp.ids import SNP_CHECKS
from confide_attestation.tdx.ids import TDX_CHECKS
from confide_attestation.vtpm.azure import TdxPlatform, verify_azure
from confide_attestation.vtpm.ids import (
    AK_CHECKS,
    HCL_CHECKS,
    MACHINE_CHECKS,
    RUNTIME_CHECKS,
    SNP_BINDING_CHECKS,
    TDX_BINDING_CHECKS,
    TPM_CHECKS,
    VtpmCheck,
)
from confide_attestation.vtpm.policy import COVERING

from tests.fakes.azure_scene import SNP, TDX, AzureScene
from tests.fakes.scene import NOW, Scene
from tests.fakes.tdx_scene import TdxScene

Corruption = Callable[[AzureScene], object]
REST = (*RUNTIME_CHECKS, *AK_CHECKS, *TPM_CHECKS, VtpmCheck.TPM_NONCE, *MACHINE_CHECKS, *BINDING_CHECKS)
ORDER = {
    SNP: [*POLICY_CHECKS, *HCL_CHECKS, *SNP_CHECKS, *SNP_BINDING_CHECKS, *REST],
    TDX: [*POLICY_CHECKS, *HCL_CHECKS, *TDX_CHECKS, *TDX_BINDING_CHECKS, *REST],
}
BOTH = pytest.mark.parametrize("profile", [SNP, TDX])


def failed(result: AttestationResult) -> set[str]:
    return {check.id for check in result.failed}


def edited(old: str, new: str) -> Corruption:
    return lambda scene: scene.edit_policy(old, new)


def configured(**changes: bool) -> Corruption:
    """Runtime data that say something else of the machine, in the hardware's report as well."""

    def corrupt(scene: AzureScene) -> None:
        tree = scene.azure.runtime()
        tree["vm-configuration"] |= {name.replace("_", "-"): value for name, value in changes.items()}
        scene.machine["runtime"] = tree

    return corrupt


def quoted(make: Callable[..., object]) -> Corruption:
    return lambda scene: setattr(scene, "quote", make)


def user_data(scene: AzureScene) -> None:
    scene.machine["runtime"] = scene.azure.runtime(**{"user-data": "11" * 64})


def others_pcrs(scene: AzureScene) -> None:
    """The machine booted something else, and its TPM says so."""
    scene.quote = lambda azure, digest: replace(azure, pcrs=[bytes(32)] * 24).quote(digest)


@BOTH
def test_a_machine_is_accepted(profile: str) -> None:
    """Every check is there once and in order, what is skipped was waived, and all of the machine is shown."""
    result = AzureScene(profile).appraise()
    assert (result.verdict, failed(result)) == (Verdict.ACCEPTED, set())
    assert [check.id for check in result.checks] == ORDER[profile]
    skipped = [check for check in result.checks if check.outcome is Outcome.SKIP]
    assert all(check.detail.startswith("waived by the policy: ") for check in skipped)
    assert list(result.claims) == ["cpu0", "vtpm", "pcrs", "keyset"]
    assert result.keyset is not None
    assert result.claims["vtpm"]["extra_data"] == result.keyset.statement_digest.hex()


CASES: dict[str, tuple[Corruption, set[str]]] = {
    "other PCRs": (others_pcrs, {"pcr_values"}),
    "a pinned PCR is not quoted": (
        quoted(lambda azure, digest: azure.sign(azure.attest(digest, selected=sorted(COVERING - {12})))),
        {"pcr_missing"},
    ),
    "secure boot is off": (configured(secure_boot=False), {"secure_boot"}),
    "console is on": (configured(console_enabled=True), {"console_enabled"}),
    "vTPM is off": (configured(tpm_enabled=False), {"tpm_disabled"}),
    "user data": (user_data, {"user_data"}),
    "another AK": (
        quoted(lambda azure, digest: azure.sign(azure.attest(digest), make_ak())),
        {"tpm_sig"},
    ),
    "another statement's quote": (
        quoted(lambda azure, digest: azure.quote(b"\1" * 32)),
        {"tpm_nonce", "report_data"},
    ),
    "the statement's other hash": (
        quoted(lambda azure, digest: azure.quote(digest + digest)),
        {"tpm_nonce", "report_data"},
    ),
    "no quote": (quoted(lambda azure, digest: None), {"tpm_magic"}),
    "runtime data of another machine": (
        lambda scene: scene.machine.update(report_data=b"\1" * 32 + bytes(32)),
        {"runtime_digest"},
    ),
    "not a report": (
        lambda scene: scene.bundle.update(cpu=CpuEvidence(CpuKind(f"azure-{scene.profile[6:]}"), b"HCLA")),
        {"hcl_size", "tpm_magic"},
    ),
    "bare hardware's kind": (
        lambda scene: scene.bundle.update(cpu=CpuEvidence(CpuKind.SEV_SNP, b"HCLA")),
        {"hcl_size", "tpm_magic", "cpu_kind"},
    ),
    "manifest of another platform": (
        lambda scene: scene.manifest.update(platform="simulated-sev-snp"),
        {"platform"},
    ),
}


@BOTH
@pytest.mark.parametrize("name", CASES)
def test_each_demand_bites_by_name(name: str, profile: str) -> None:
    """One thing is wrong, the checks that are named for it fail, all checks are listed, and there is no keyset."""
    corrupt, reasons = CASES[name]
    scene = AzureScene(profile)
    corrupt(scene)
    result = scene.appraise()
    assert (result.verdict, result.keyset) == (Verdict.REFUSED, None)
    assert [check.id for check in result.checks] == ORDER[profile]
    # A TD's quote travels with its vTPM's.
    assert failed(result) - {"quote_size"} == reasons


@BOTH
def test_waivers_stand_with_their_reasons(profile: str) -> None:
    """A console that is on, secure boot off and any user data pass only where the policy says why."""
    scene = AzureScene(profile)
    configured(secure_boot=False, console_enabled=True)(scene)
    for old, field in (
        ('secure_boot = "required"', "secure_boot"),
        ('console = "refused"', "console"),
        (f'user_data = "{"00" * 64}"', "user_data"),
    ):
        scene.edit_policy(old, f'{field} = {{ waived = "allowed by this test alone" }}')
    result = scene.appraise()
    assert result.verdict is Verdict.ACCEPTED
    waived = [check.id for check in result.checks if "allowed by this test alone" in check.detail]
    assert waived == ["secure_boot", "console_enabled", "user_data"]


def test_the_hardwares_own_policy_counts() -> None:
    """Measurement of the paravisor, VMPL, debugging: by the rooms of their vendors."""
    for profile, machine, reasons in (
        (SNP, {"report": {"measurement": b"\1" * 48}}, {"measurement"}),
        (SNP, {"report": {"vmpl": 1}}, {"vmpl", "hcl_vmpl"}),
        (TDX, {"report": {"mr_td": b"\1" * 48}}, {"mr_td"}),
        (TDX, {"report": {"rtmr2": b"\1" * 48}}, {"rtmr2"}),
    ):
        assert failed(AzureScene(profile, machine=machine).appraise()) == reasons


def test_a_debug_guest_binds_nothing() -> None:
    """Its host reads the AK out of its memory, so what the TPM signed says nothing, and is not shown."""
    for profile, report, reason in (
        (SNP, {"policy": 0xB0000}, "debug"),
        (TDX, {"td_attributes": ((1 << 28) | 1).to_bytes(8, "little")}, "td_debug"),
    ):
        result = AzureScene(profile, machine={"report": report}).appraise()
        outcomes = {check.id: check.outcome for check in result.checks}
        assert reason in failed(result)
        assert (outcomes["report_data"], outcomes["pcr_values"]) == (Outcome.SKIP, Outcome.SKIP)
        assert {"vtpm", "pcrs"} & set(result.claims) == set()


def test_user_data_bind_nothing() -> None:
    """A guest writes what it likes into the HCL report's user data: the statement there is no binding."""
    scene = AzureScene(quote=lambda azure, digest: azure.quote(b"\1" * 32))
    bound = hashlib.sha512(scene.build()[0].statement).hexdigest()
    scene.machine["runtime"] = scene.azure.runtime(**{"user-data": bound})
    scene.edit_policy("00" * 64, bound)
    assert failed(scene.appraise()) == {"report_data", "tpm_nonce"}


def test_endorsements_of_the_other_vendor_are_no_endorsements() -> None:
    """A policy decides which hardware is judged, never what was given for it."""
    snps, tdxs = AzureScene(SNP).build()[1], AzureScene(TDX).build()[1]
    assert "vek_format" in failed(AzureScene(SNP, endorse=lambda _: tdxs).appraise())
    assert "collateral_format" in failed(AzureScene(TDX, endorse=lambda _: snps).appraise())
    for profile in (SNP, TDX):
        result = AzureScene(profile, endorse=lambda _: Endorsements()).appraise()
        assert [check.id for check in result.checks] == ORDER[profile]
        assert result.verdict is Verdict.REFUSED


def test_the_other_machines_report_is_foreign() -> None:
    """An HCL report of TDX where the policy demands SEV-SNP, and the reverse."""
    for profile, other in ((SNP, TDX), (TDX, SNP)):
        cpu = replace(AzureScene(other).build()[0].cpu, kind=CpuKind(f"azure-{profile[6:]}"))
        result = AzureScene(profile, bundle={"cpu": cpu}).appraise()
        assert failed(result) == {"hcl_foreign", "tpm_nonce"} | ({"cpu_kind"} if other == TDX else set())
        assert result.verdict is Verdict.REFUSED


@BOTH
def test_alone_the_policy_counts_and_needs_a_nonce(profile: str) -> None:
    """`verify_azure` with the policy: accepted with the nonce, refused without, and never a keyset."""
    scene = AzureScene(profile)
    evidence, endorsements, policy = scene.build()
    assert evidence.cpu.vtpm is not None
    collateral = b"" if endorsements.tdx is None else endorsements.tdx.collateral
    platform = endorsements.snp or TdxPlatform(evidence.cpu.vtpm.td_quote, collateral)

    def judge(nonce: bytes | None, allow_simulated: bool = True) -> AttestationResult:
        assert evidence.cpu.vtpm is not None
        return verify_azure(
            evidence.cpu.report,
            evidence.cpu.vtpm,
            platform,
            now_unix_s=NOW,
            nonce=nonce,
            policy=policy,
            allow_simulated=allow_simulated,
        )

    nonce = bytes.fromhex(str(scene.appraise().claims["vtpm"]["extra_data"]))
    accepted = judge(nonce)
    assert (accepted.verdict, accepted.keyset, accepted.policy_id) == (Verdict.ACCEPTED, None, policy.id)
    assert judge(None).verdict is Verdict.REFUSED
    assert failed(judge(nonce, allow_simulated=False)) == {"simulated"}


def test_a_policy_pins_what_the_machine_boots() -> None:
    """A policy that leaves out a PCR of them is an error."""
    text = AzureScene().policy_text(b"")
    for pcr in COVERING:
        line = next(line for line in text.splitlines() if line.startswith(f"{pcr} = "))
        with pytest.raises(Exception, match=f"pin {pcr} too"):
            load_policy(text.replace(line + "\n", "").encode(), "policy.toml")


def test_the_result_ends_with_the_first_of_all() -> None:
    """The hardware's endorsements, or the policy's greatest age of them, can end before the statement."""

    def until(scene: AzureScene) -> int:
        result = scene.appraise()
        assert result.keyset is not None, failed(result)
        return result.keyset.valid_until_unix_s - NOW

    assert [until(AzureScene(profile)) for profile in (SNP, TDX)] == [600, 600]
    young = AzureScene(TDX)
    young.edit_policy("max_collateral_age_s = 86400", "max_collateral_age_s = 3900")
    assert until(young) == 300


def test_what_is_no_part_of_a_kind_is_refused() -> None:
    """A vTPM's quote beside bare hardware, a TDX quote beside SEV-SNP's: nothing would judge them."""
    azure, bare, tdx = AzureScene(SNP), Scene(), TdxScene()
    own = azure.build()[0].cpu
    assert own.vtpm is not None
    for scene, cpu in (
        (azure, replace(own, vtpm=replace(own.vtpm, td_quote=b"quote"))),
        (bare, replace(bare.build()[0].cpu, vtpm=own.vtpm)),
        (tdx, replace(tdx.build()[0].cpu, vtpm=own.vtpm)),
    ):
        assert failed(scene.appraise()) == set()
        scene.bundle["cpu"] = cpu
        assert failed(scene.appraise()) == {"cpu_kind"}
