"""Real TDX quotes get their known verdicts at their pinned times, and not one bit of them can be changed."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from confide_attestation.result import AttestationResult, Outcome, Verdict
from confide_attestation.tdx.abi import FIELDS, parse_quote
from confide_attestation.tdx.judge import verify_tdx

from tests.shared import ROOT, shared_path

FOLDERS = [path.parent for path in (ROOT / "evidence" / "tdx").glob("*/expected.json")]
FOLDERS += [path.parent for path in (ROOT / "evidence" / "azure").glob("tdx_*/expected.json")]
NAMES = sorted("/".join(folder.parts[-2:]) for folder in FOLDERS)
# What dcap-qvl says of a quote that it refuses, and our name for it.
REASONS = {
    "Debug mode is enabled": "td_debug",
    "Invalid MR service TD": "service_td",
    "SEPT_VE_DISABLE is not enabled": "sept_ve_disable",
}
DCAP, ALIBABA = "tdx/dcap_qvl_tdx_quote__20250704", "tdx/automata_alibaba_quote_5_dat__20260305"
VERSION_5 = "tdx/go_tdx_guest_quote_v5_sample_dat__20260305"


@dataclass(frozen=True)
class Real:
    """One folder of recorded evidence."""

    quote: bytes
    collateral: bytes
    expected: dict[str, str | int | list[str]]

    @property
    def now(self) -> int:
        now = self.expected["now"]
        assert isinstance(now, int)
        return now

    @property
    def verdict(self) -> str:
        return str(self.expected.get("dcap_qvl_0_7_0") or self.expected["verdict"])

    def judge(self, *, quote: bytes | None = None, now: int | None = None) -> AttestationResult:
        given = self.quote if quote is None else quote
        return verify_tdx(given, self.collateral, now_unix_s=self.now if now is None else now)


def load(name: str) -> Real:
    folder: Path = shared_path("evidence", *name.split("/"))
    quote = next(folder / file for file in ("quote.bin", "td_quote.bin") if (folder / file).exists())
    expected = json.loads((folder / "expected.json").read_text())
    return Real(quote.read_bytes(), (folder / "collateral.json").read_bytes(), expected)


def failed(result: AttestationResult) -> list[str]:
    return [check.id for check in result.failed]


def test_the_folders_are_here() -> None:
    """Say so when there is no evidence to judge."""
    shared_path("evidence", "tdx")
    assert len(NAMES) >= 11


@pytest.mark.parametrize("name", NAMES)
def test_verdict_at_its_pinned_time(name: str) -> None:
    """UpToDate is authentic; another status, and what dcap-qvl refuses, fail the named check alone."""
    real = load(name)
    result = real.judge()
    if real.verdict.startswith("UpToDate"):
        assert failed(result) == []
        assert result.verdict is Verdict.AUTHENTIC
        assert not result.simulated
        return
    reason = "tcb_status_denied"
    if real.verdict.startswith("REJECT"):
        (reason,) = (name for text, name in REASONS.items() if text in real.verdict)
    assert failed(result) == [reason]
    assert result.verdict is Verdict.REFUSED


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("tdx/")])
def test_claims_are_those_of_the_quote(name: str) -> None:
    """Every recorded value is read, of refused quotes too: their signatures hold."""
    real = load(name)
    claims = real.judge().claims["cpu0"]
    for field in ("tee_tcb_svn", "td_attributes", "xfam", "mr_seam", "mr_td", "report_data", "mr_config_id"):
        assert claims[field] == real.expected[field]
    assert [claims[f"rtmr{at}"] for at in range(4)] == real.expected["rtmr"]
    assert claims["quote_version"] == real.expected["version"]
    assert claims["fmspc"] == str(real.expected["fmspc"]).lower()


def test_out_of_date_says_what_is_short_and_names_the_advisories() -> None:
    """The real OutOfDate quote: microcode, by one."""
    real = load("tdx/automata_quotev4_hex__20250626")
    result = real.judge()
    (check,) = result.failed
    assert "SGX component 1 (Early Microcode Update, BIOS) has SVN 6, 7 is demanded (1 short)" in check.detail
    for advisory in ("INTEL-SA-00960", "INTEL-SA-00982", "INTEL-SA-00986"):
        assert advisory in check.detail
    assert result.claims["cpu0"]["tcb_status"] == "OutOfDate"


@pytest.mark.parametrize("name", [DCAP, VERSION_5])
def test_the_same_quote_fails_before_and_after_its_documents(name: str) -> None:
    """A day after the first document ends, a day before the last one began, and today."""
    real = load(name)
    late = failed(real.judge(now=1_800_000_000))
    assert {"tcb_info_expired", "qe_identity_expired", "crl_expired"} <= set(late)
    early = failed(real.judge(now=real.now - 60 * 86_400))
    assert {"tcb_info_not_yet_valid", "qe_identity_not_yet_valid"} <= set(early)


def test_documents_of_another_platform_do_not_help() -> None:
    """The collateral of one FMSPC is refused for a quote of another, at a time when both are good."""
    near, gcp = load(DCAP), load("tdx/go_tdx_guest_ccel_cos_113_tdx_quote_dat__20250626")
    result = verify_tdx(near.quote, gcp.collateral, now_unix_s=gcp.now)
    assert failed(result) == ["fmspc_mismatch"]
    assert result.claims == {}


def test_bodies_cannot_be_swapped() -> None:
    """One quote's body under another's signature."""
    one, other = load("tdx/dstack_quote_report_json__20260305"), load("azure/tdx_live")
    spliced = one.quote[:48] + other.quote[48:632] + one.quote[632:]
    assert failed(one.judge(quote=spliced)) == ["quote_signature"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("field", FIELDS)
def test_every_field_is_covered_by_the_signature(name: str, field: str) -> None:
    """A flipped field is refused, and nothing is claimed."""
    real = load(name)
    at = (48 if parse_quote(real.quote).version == 4 else 54) + FIELDS[field][0]
    changed = bytearray(real.quote)
    changed[at] ^= 0x80
    result = real.judge(quote=bytes(changed))
    assert "quote_signature" in failed(result)
    assert result.claims == {}


@pytest.mark.parametrize("name", [DCAP, VERSION_5])
def test_no_byte_of_an_accepted_quote_can_be_changed(name: str) -> None:
    """A bit of each of the 5,006 bytes: dcap-qvl alone accepts 946 (version 4) and 875 (version 5) of them."""
    real = load(name)
    end = len(parse_quote(real.quote).data)
    accepted = []
    for at in range(end):
        changed = bytearray(real.quote)
        changed[at] ^= 1
        if real.judge(quote=bytes(changed)).verdict is Verdict.AUTHENTIC:
            accepted.append(at)
    assert accepted == []


def test_padding_is_the_only_freedom() -> None:
    """More zero bytes are the same quote; one byte that is not zero is none."""
    real = load("tdx/go_tdx_guest_ccel_cos_113_tdx_quote_dat__20250626")
    assert len(real.quote) == 8000
    claims = real.judge().claims
    for other in (real.quote.rstrip(b"\0"), real.quote + bytes(100)):
        assert real.judge(quote=other).claims == claims
    assert failed(real.judge(quote=real.quote[:-1] + b"\1")) == ["quote_trailing_data"]


def test_a_refusal_after_the_signatures_lists_them_as_held() -> None:
    """The auditor of a service TD sees that the quote is genuine."""
    outcomes = {check.id: check.outcome for check in load(ALIBABA).judge().checks}
    assert outcomes["quote_signature"] is Outcome.PASS
    assert outcomes["service_td"] is Outcome.FAIL
    assert outcomes["tcb_status_denied"] is Outcome.SKIP
