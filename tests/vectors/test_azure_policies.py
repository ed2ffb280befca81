"""Real Azure machines under policies written from their own values: accepted with their nonce, refused by name."""

import json
import re
from functools import cache
from pathlib import Path

import pytest
from confide_attestation.policy import AppraisalPolicy, load_policy
from confide_attestation.result import AttestationResult, Outcome, Verdict
from confide_attestation.snp.abi import parse_report
from confide_attestation.vtpm.azure import TdxPlatform, verify_azure
from confide_attestation.vtpm.hcl import parse_hcl
from confide_attestation.vtpm.policy import COVERING

from tests.fakes.tdx_policy import tdx_policy
from tests.vectors.test_azure_evidence import ACCEPTED, Real, load
from tests.vectors.test_tdx_policies import MONTH_S
from tests.vectors.test_tdx_policies import Real as RealQuote

EXAMPLE = Path(__file__).resolve().parents[2] / "deploy/policies/azure-sev-snp.toml"
SNP, TDX = ACCEPTED
MILAN = 'milan = { accepted_because = "the recorded machine is a Milan", min_tcb = %s, rises = "never" }'
LEVELS = "{ bl = 4, tee = 0, snp = 24, ucode = 219 }"
BOTH = pytest.mark.parametrize("name", ACCEPTED)


@cache
def policy_text(name: str) -> str:
    """Write the policy that this machine meets. Both have the host's console on."""
    real = load(name)
    text = _snp(real) if name == SNP else _tdx(real)
    return f"{text.partition('[platform.vtpm]')[0]}{_vtpm(real)}"


def _vtpm(real: Real) -> str:
    pcrs: list[str] = json.loads(real.vtpm.pcrs)
    pinned = "\n".join(f'{pcr} = ["{pcrs[pcr]}"]' for pcr in sorted(COVERING))
    return (
        '[platform.vtpm]\nsecure_boot = "required"\nconsole = { waived = "this recording is of a test machine" }\n'
        f'user_data = "{real.expected["user_data"]}"\n[platform.vtpm.pcrs]\n{pinned}\n'
    )


def _snp(real: Real) -> str:
    report = parse_report(parse_hcl(real.hcl).hardware)
    head, _, rest = EXAMPLE.read_text().partition("[platform.vtpm]")
    text = head + rest[rest.index("[platform.snp]") :]
    for pattern, value in (
        (r"measurements = \[[^]]*\]", f'measurements = ["{report.measurement.hex()}"]'),
        (r"host_data = \[[^]]*\]", f'host_data = ["{report.host_data.hex()}"]'),
        (r"crl = .*", 'crl = { waived = "no list was recorded with this machine" }'),
        (r"milan = .*", MILAN % LEVELS),
        (r"min_firmware = .*", 'min_firmware = "1.55.29"'),
    ):
        text, count = re.subn(f"^{pattern}", value, text, flags=re.MULTILINE)
        assert count == 1, pattern
    return text


def _tdx(real: Real) -> str:
    assert isinstance(real.platform, TdxPlatform)
    pins = RealQuote(real.platform.quote, real.platform.collateral_json, {}).pins
    text = tdx_policy("azure/tdx", pins)
    text = text.replace("max_collateral_age_s = 86400", f"max_collateral_age_s = {MONTH_S}")
    return text.replace("max_root_crl_age_s = 172800", f"max_root_crl_age_s = {12 * MONTH_S}")


def judge(name: str, *edits: tuple[str, str], nonce: bytes | None = None) -> AttestationResult:
    real, text = load(name), policy_text(name)
    for old, new in edits:
        assert old in text, f"the policy has no {old}"
        text = text.replace(old, new)
    policy: AppraisalPolicy = load_policy(text.encode(), "policy.toml")
    return verify_azure(
        real.hcl,
        real.vtpm,
        real.platform,
        now_unix_s=int(real.expected["now"]),
        nonce=real.nonce if nonce is None else nonce,
        policy=policy,
    )


def failed(result: AttestationResult) -> list[str]:
    return [check.id for check in result.failed]


@BOTH
def test_a_real_machine_is_accepted(name: str) -> None:
    """Every check passes, or is waived with its reason."""
    result = judge(name)
    assert (failed(result), result.verdict) == ([], Verdict.ACCEPTED)
    skipped = [check for check in result.checks if check.outcome is Outcome.SKIP]
    assert all(check.detail.startswith("waived by the policy: ") for check in skipped)


@BOTH
@pytest.mark.parametrize("pcr", sorted(COVERING))
def test_each_pinned_pcr_counts(name: str, pcr: int) -> None:
    """Another value of one of them is another machine."""
    value = json.loads(load(name).vtpm.pcrs)[pcr]
    result = judge(name, (f'\n{pcr} = ["{value}"]', f'\n{pcr} = ["{"ab" * 32}"]'))
    assert failed(result) == ["pcr_values"]
    assert f"PCRs [{pcr}]" in result.failed[0].detail


@BOTH
def test_each_demand_counts(name: str) -> None:
    """The console that is on, other user data, another nonce."""
    user_data = str(load(name).expected["user_data"])
    console = 'console = { waived = "this recording is of a test machine" }'
    assert failed(judge(name, (console, 'console = "refused"'))) == ["console_enabled"]
    assert failed(judge(name, (user_data, "ab" * 64))) == ["user_data"]
    assert failed(judge(name, nonce=b"\1" * 24)) == ["tpm_nonce"]


def test_the_hardware_counts() -> None:
    """Product, TCB and paravisor of the real machines."""
    assert "product_denied" in failed(judge(SNP, (MILAN % LEVELS, 'milan = "refused"')))
    assert failed(judge(SNP, (LEVELS, LEVELS.replace("219", "220")))) == ["min_tcb"]
    measurement = parse_report(parse_hcl(load(SNP).hcl).hardware).measurement.hex()
    assert failed(judge(SNP, (measurement, "ab" * 48))) == ["measurement"]
    assert failed(judge(TDX, ("min_tcb_evaluation_number = 18", "min_tcb_evaluation_number = 19"))) == [
        "eval_number_too_low"
    ]
    mr_td = str(judge(TDX).claims["cpu0"]["mr_td"])
    assert failed(judge(TDX, (mr_td, "ab" * 48))) == ["mr_td"]
