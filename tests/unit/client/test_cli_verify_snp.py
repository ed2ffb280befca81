"""`confide verify snp`: exit status, JSON, times, PEM and DER, policies, and files of the wrong kind."""

import base64
import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confide.cli.verify import verify

from tests.fakes.scene import NOW, Scene
from tests.shared import shared_path

GENOA_AT, MILAN_AT = "1775441107", "1775437473"


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(verify, ["snp", *map(str, args)])


def tree(*args: str | Path) -> tuple[int, dict[str, Any]]:
    result = run(*args, "--json")
    return result.exit_code, json.loads(result.stdout)


def folder(name: str) -> Path:
    return shared_path("evidence", "snp", name)


def pem(der: bytes, label: str = "CERTIFICATE") -> bytes:
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(der) + f"-----END {label}-----\n".encode()


def genoa() -> tuple[Path, ...]:
    at = folder("genoa_v3_vcek_ms")
    return at / "report.bin", Path("--vek"), at / "vek.der", Path("--at"), Path(GENOA_AT)


def test_authentic_report_without_policy() -> None:
    """Exit 0, and the text says that nothing was appraised."""
    result = run(*genoa())
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].startswith("authentic, NOT appraised")


def test_json_has_verdict_checks_and_claims() -> None:
    """Policy checks are SKIP without a policy, and revocation without a list."""
    status, said = tree(*genoa())
    outcomes = {check["id"]: check["outcome"] for check in said["checks"]}
    assert (status, said["verdict"], said["appraised"]) == (0, "authentic", False)
    assert outcomes["report_sig"] == "PASS"
    assert outcomes["product_denied"] == outcomes["ask_revoked"] == "SKIP"
    assert said["claims"]["cpu0"]["product"] == "Genoa"
    assert all(set(check) == {"id", "outcome", "detail"} for check in said["checks"])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("milan_v2_vcek_debug_gosev", "debug"),
        ("reject_foreign_vcek_gce", "tcb_mismatch"),
        ("reject_bad_vcek_trustee", "vek_sig"),
    ],
)
def test_refused_report_exits_1_and_names_the_check(name: str, reason: str) -> None:
    """Real bad evidence is refused for its known reason."""
    at = folder(name)
    expected = json.loads((at / "expected.json").read_text())
    status, said = tree(
        at / "report.bin", "--vek", at / "vek.der", "--ask", at / "ask.der", "--ark", at / "ark.der",
        "--at", expected["now"],
    )  # fmt: skip
    assert (status, said["verdict"]) == (1, "refused")
    assert reason in {check["id"] for check in said["checks"] if check["outcome"] == "FAIL"}


def test_pem_and_der_are_the_same(tmp_path: Path) -> None:
    """All three certificates and the list may be PEM."""
    at = folder("milan_v3_vcek_ms")
    args: list[str | Path] = [at / "report.bin", "--at", MILAN_AT]
    for part in ("vek", "ask", "ark"):
        (tmp_path / part).write_bytes(pem((at / f"{part}.der").read_bytes()))
        args += [f"--{part}", tmp_path / part]
    crl = shared_path("evidence", "snp", "roots", "crl_milan.der").read_bytes()
    (tmp_path / "crl").write_bytes(pem(crl, "X509 CRL"))
    status, said = tree(*args, "--crl", tmp_path / "crl")
    assert (status, said["verdict"]) == (0, "authentic")
    assert {c["id"]: c["outcome"] for c in said["checks"]}["ask_revoked"] == "PASS"


def test_list_out_of_its_window_is_a_failure() -> None:
    """An old list is worse than none: exit 1."""
    status, said = tree(*genoa(), "--crl", shared_path("evidence", "snp", "roots", "crl_genoa.der"))
    assert status == 1
    assert [c["id"] for c in said["checks"] if c["outcome"] == "FAIL"] == ["crl_expired"]


def test_foreign_root_is_refused(tmp_path: Path) -> None:
    """An ARK of one's own making does not help."""
    evidence, endorsements, _ = Scene().build()
    (tmp_path / "report").write_bytes(evidence.cpu.report)
    for part in ("vek", "ask", "ark"):
        (tmp_path / part).write_bytes(getattr(endorsements.snp, part))
    chain = [item for part in ("vek", "ask", "ark") for item in (f"--{part}", tmp_path / part)]
    status, said = tree(tmp_path / "report", *chain, "--at", NOW)
    assert status == 1
    assert "ark_pin" in {check["id"] for check in said["checks"] if check["outcome"] == "FAIL"}
    (tmp_path / "policy.toml").write_text(Scene().policy_text(endorsements.snp, evidence.manifest))
    with_policy = [tmp_path / "report", *chain, "--at", NOW, "--policy", tmp_path / "policy.toml"]
    assert tree(*with_policy)[0] == 1
    status, said = tree(*with_policy, "--allow-simulated", "--ear", tmp_path / "ear.json")
    assert (status, said["verdict"], said["appraised"], said["simulated"]) == (0, "accepted", True, True)
    assert "SIMULATED HARDWARE" in run(*with_policy, "--allow-simulated").stdout.splitlines()[0]
    assert json.loads((tmp_path / "ear.json").read_text())["ear.status"] == "contraindicated"


def test_unknown_version_and_reserved_field_exit_1(tmp_path: Path) -> None:
    """A report of the right size with wrong content is refused, not unreadable."""
    report, *rest = genoa()
    data = bytearray(report.read_bytes())
    for at, check in ((0, "report_version"), (0x4C, "report_reserved")):
        changed = bytearray(data)
        changed[at] ^= 0x10
        (tmp_path / "report").write_bytes(changed)
        status, said = tree(tmp_path / "report", *rest)
        assert (status, said["verdict"]) == (1, "refused")
        assert check in {c["id"] for c in said["checks"] if c["outcome"] == "FAIL"}


def test_sampled_flips_never_exit_0(tmp_path: Path) -> None:
    """Forty bits through the command line; all of them are tried in tests/vectors."""
    report, *rest = genoa()
    data = report.read_bytes()
    for bit in random.Random(2).sample(range(8 * len(data)), 40):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        (tmp_path / "report").write_bytes(changed)
        assert run(tmp_path / "report", *rest).exit_code in (1, 2)


@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_file_of_another_kind_exits_2_with_one_line(tmp_path: Path, json_flag: list[str]) -> None:
    """Swapped, empty, huge, absent and torn files are named in one line each."""
    report, _, vek, *at = genoa()
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "torn.pem").write_bytes(pem(vek.read_bytes())[:-30])
    (tmp_path / "two.pem").write_bytes(pem(vek.read_bytes()) * 2)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 30)
    for args, named in (
        ((vek, "--vek", vek), vek),
        ((report, "--vek", report), report),
        ((report, "--vek", tmp_path / "empty"), "empty"),
        ((report, "--vek", tmp_path / "torn.pem"), "torn.pem"),
        ((report, "--vek", tmp_path / "two.pem"), "two.pem"),
        ((tmp_path / "huge", "--vek", vek), "huge"),
        ((tmp_path / "none", "--vek", vek), "none"),
        ((report, "--vek", vek, "--ask", report), report),
        ((report, "--vek", vek, "--crl", vek), vek),
        ((tmp_path, "--vek", vek), tmp_path),
    ):
        result = run(*args, *at, *json_flag)
        assert result.exit_code == 2
        assert str(named) in result.stderr
        assert "Traceback" not in result.output
        if json_flag and result.stdout:
            assert json.loads(result.stdout)["verdict"] == "unreadable"


def test_broken_policy_exits_2_and_names_the_field(tmp_path: Path) -> None:
    """A policy fault is one line with file and field."""
    (tmp_path / "policy.toml").write_text("serial = 1\n")
    result = run(*genoa(), "--policy", tmp_path / "policy.toml")
    assert result.exit_code == 2
    assert "policy.toml: kind: is missing" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_hardware_policy_judges_real_evidence(tmp_path: Path) -> None:
    """With the report's own values pinned in the example policy the real report is accepted; as it is, refused."""
    example = (Path(__file__).resolve().parents[3] / "deploy/policies/example.toml").read_text()
    real = json.loads((folder("genoa_v3_vcek_ms") / "expected.json").read_text())
    crl = "crl = { max_age_s = 2592000 }"
    assert crl in example
    pinned = (
        example.replace('"' + "00" * 48 + '"', f'"{real["measurement"]}"')
        .replace('host_data = ["' + "00" * 32, f'host_data = ["{real["host_data"]}')
        .replace(crl, 'crl = { waived = "the recorded list is older than the report" }')
    )
    (tmp_path / "example.toml").write_text(example)
    (tmp_path / "pinned.toml").write_text(pinned)
    status, said = tree(*genoa(), "--policy", tmp_path / "pinned.toml")
    assert (status, said["verdict"], said["appraised"], said["simulated"]) == (0, "accepted", True, False)
    status, said = tree(*genoa(), "--policy", tmp_path / "example.toml")
    assert status == 1
    failed = [check["id"] for check in said["checks"] if check["outcome"] == "FAIL"]
    assert failed == ["crl_age", "measurement", "host_data"]


def test_help_teaches() -> None:
    """`--help` names every option."""
    text = run("--help").stdout
    for option in ("--vek", "--ask", "--ark", "--crl", "--at", "--policy", "--allow-simulated", "--json"):
        assert option in text


def test_amds_cert_chain_serves_as_ask_and_ark(tmp_path: Path) -> None:
    """ASK and ARK in one PEM file are both taken; in the wrong order they are refused, three of them unreadable."""
    at = folder("genoa_v3_vcek_ms")
    ask, ark = pem((at / "ask.der").read_bytes()), pem((at / "ark.der").read_bytes())
    chain = tmp_path / "cert_chain.pem"
    for content, status in ((ask + ark, 0), (ark + ask, 1), (ask + ark + ask, 2)):
        chain.write_bytes(content)
        assert run(*genoa(), "--ask", chain).exit_code == status
