"""Real SEV-SNP reports get their known verdicts at their pinned times, and not one bit of them can be changed."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from confide_attestation.checks.ledger import Ledger
from confide_attestation.evidence import SnpEndorsements
from confide_attestation.pem import pem_or_der
from confide_attestation.result import Outcome, Verdict
from confide_attestation.snp.chain import amd_roots, verify_chain
from confide_attestation.snp.ids import SNP_CHAIN_CHECKS, SNP_REPORT_CHECKS, SnpCheck
from confide_attestation.snp.judge import verify_snp
from confide_attestation.snp.verify import verify_report

from tests.shared import ROOT, shared_path

FOLDER = ROOT / "evidence" / "snp"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/expected.json"))
ACCEPTED_OF_EACH_VERSION = ("milan_v2_vcek_trustee", "genoa_v3_vcek_ms", "turin_v5_vcek_ms")


@dataclass(frozen=True)
class Real:
    """One folder of recorded evidence."""

    report: bytes
    endorsements: SnpEndorsements
    expected: dict[str, str | int]

    @property
    def now(self) -> int:
        return int(self.expected["now"])


def load(name: str) -> Real:
    folder = shared_path("evidence", "snp", name)
    vek, ask, ark = ((folder / f"{part}.der").read_bytes() for part in ("vek", "ask", "ark"))
    expected = json.loads((folder / "expected.json").read_text())
    return Real((folder / "report.bin").read_bytes(), SnpEndorsements(vek, ask, ark), expected)


def crl(product: str) -> bytes:
    return shared_path("evidence", "snp", "roots", f"crl_{product.lower()}.der").read_bytes()


def test_the_folder_is_here() -> None:
    """Say so when there is no evidence to judge."""
    shared_path("evidence", "snp")
    assert NAMES


@pytest.mark.parametrize("packaged", [False, True], ids=["given-chain", "packaged-chain"])
@pytest.mark.parametrize("name", NAMES)
def test_verdict_at_its_pinned_time(name: str, packaged: bool) -> None:
    """Accepted evidence is authentic, refused evidence fails the named check; the packaged chain agrees."""
    real = load(name)
    given = replace(real.endorsements, ask=None, ark=None) if packaged else real.endorsements
    result = verify_snp(real.report, given, now_unix_s=real.now)
    failed = [check.id for check in result.failed]
    kind, _, reason = str(real.expected["verdict"]).partition(" ")
    if kind == "ACCEPT":
        assert failed == []
        assert result.verdict is Verdict.AUTHENTIC
    else:
        assert reason.split(":")[0] in failed
        assert result.verdict is Verdict.REFUSED


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("reject")])
def test_claims_are_those_of_the_report(name: str) -> None:
    """Every recorded value is read."""
    real = load(name)
    claims = verify_snp(real.report, real.endorsements, now_unix_s=real.now).claims["cpu0"]
    for field in (
        "product",
        "report_version",
        "signer",
        "vmpl",
        "measurement",
        "report_data",
        "host_data",
        "chip_id",
    ):
        assert claims[field] == real.expected[field]
    assert claims["guest_policy"] == f"0x{real.expected['policy']}"
    levels = real.expected["reported_tcb_decoded"]
    assert isinstance(levels, dict)
    assert {part: claims[f"tcb_reported_{part}"] for part in levels} == levels


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("reject")])
def test_refused_signature_shows_no_claim(name: str) -> None:
    """Nothing that an unsigned report says is shown."""
    real = load(name)
    assert verify_snp(real.report, real.endorsements, now_unix_s=real.now).claims == {}


def test_vlek_expires_after_a_year() -> None:
    """A day after its end the same evidence is refused for that alone."""
    real = load("milan_v3_vlek_aws_trustee")
    result = verify_snp(real.report, real.endorsements, now_unix_s=1_765_500_000)
    assert [check.id for check in result.failed] == [SnpCheck.VEK_VALIDITY]


def test_real_lists_are_judged() -> None:
    """A current list passes, one out of its window and one of another product fail."""
    milan, genoa = load("milan_v3_vcek_ms"), load("genoa_v3_vcek_ms")
    judged = (
        (milan, crl("Milan"), milan.now, []),
        (milan, crl("Milan"), 1_780_000_000, [SnpCheck.CRL_EXPIRED]),
        (genoa, crl("Genoa"), genoa.now, [SnpCheck.CRL_EXPIRED]),
        (milan, crl("Genoa"), milan.now, [SnpCheck.CRL_SIG, SnpCheck.CRL_EXPIRED]),
    )
    for real, data, now, expected in judged:
        result = verify_snp(real.report, replace(real.endorsements, crl=data), now_unix_s=now)
        assert [check.id for check in result.failed] == expected


def test_certificates_of_another_chip_or_product_are_refused() -> None:
    """Swapping any certificate between folders is seen."""
    milan, genoa = load("milan_v3_vcek_ms"), load("genoa_v3_vcek_ms")
    for part in ("vek", "ask", "ark"):
        mixed = replace(milan.endorsements, **{part: getattr(genoa.endorsements, part)})
        assert verify_snp(milan.report, mixed, now_unix_s=milan.now).verdict is Verdict.REFUSED


@pytest.mark.parametrize("name", ACCEPTED_OF_EACH_VERSION)
def test_no_bit_of_an_accepted_report_can_be_flipped(name: str) -> None:
    """Each of the 9,472 bits is covered by some check."""
    real = load(name)
    ledger = Ledger()
    chain = verify_chain(ledger, real.endorsements, amd_roots(), real.now)
    assert chain is not None
    before = ledger.close(SNP_CHAIN_CHECKS)
    assert all(check.outcome is Outcome.PASS for check in before if not check.id.startswith(("crl", "ask_revoked")))
    accepted = []
    for bit in range(8 * len(real.report)):
        changed = bytearray(real.report)
        changed[bit // 8] ^= 1 << bit % 8
        ledger = Ledger()
        verify_report(ledger, bytes(changed), chain)
        if not ledger.failed(SNP_REPORT_CHECKS):
            accepted.append(bit)
    assert accepted == []


def test_every_file_of_roots_is_known() -> None:
    """The packaged ARKs are byte for byte those of the evidence folder."""
    for product, digest in amd_roots().ark_sha256.items():
        pem: Path = shared_path("evidence", "snp", "roots", f"ark_{product.lower()}.pem")
        assert hashlib.sha256(pem_or_der(pem.read_bytes(), "CERTIFICATE")).digest() == digest
