"""`confide endorsements`: fetched, listed, carried to a machine without network, and judged there."""

import base64
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confide.cli import main
from confide_attestation.evidence import (
    CpuEvidence,
    CpuKind,
    EvidenceBundle,
    GpuEvidence,
    encode_bundle,
    parse_endorsements,
)
from confide_attestation.simulated.amd import SimulatedAmd
from confide_attestation.simulated.intel import SimulatedIntel
from confide_attestation.simulated.nvidia import SimulatedDevice, SimulatedVendor
from confide_protocol.statement import NoncePath

from tests.fakes.vendors import Reply, Vendors

NOW = int(time.time())
NONCE = b"\x4e" * 32
RIM_IDS = ["NV_GPU_DRIVER_GH100_550.90.07", "NV_GPU_VBIOS_1010_0200_882_96009F0001"]


@pytest.fixture(scope="module")
def amd() -> SimulatedAmd:
    return SimulatedAmd.make(NOW)


@pytest.fixture(scope="module")
def intel() -> SimulatedIntel:
    return SimulatedIntel.make(NOW)


@pytest.fixture(scope="module")
def device() -> SimulatedDevice:
    return SimulatedDevice(SimulatedVendor(NOW))


@pytest.fixture
def vendors(amd: SimulatedAmd, intel: SimulatedIntel, device: SimulatedDevice) -> Iterator[Vendors]:
    with Vendors().running() as server:
        server.serve_amd(amd, NOW)
        server.serve_intel(intel)
        server.serve_nvidia(device, RIM_IDS)
        yield server


@pytest.fixture
def files(tmp_path: Path, amd: SimulatedAmd, intel: SimulatedIntel, device: SimulatedDevice) -> Path:
    """Write a report, a quote and a GPU's evidence."""
    (tmp_path / "report").write_bytes(amd.sign_report(bytes(64)))
    (tmp_path / "quote").write_bytes(intel.sign_quote(bytes(64)))
    (tmp_path / "gpu").write_bytes(device.report(NONCE))
    (tmp_path / "chain").write_bytes(device.chain)
    return tmp_path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["endorsements", *map(str, arguments)])


def elsewhere(vendors: Vendors) -> list[str]:
    names = ("kds", "pcs", "rim", "ocsp", "nras", "metadata")
    places = [part for name in names for part in ("--service", f"{name}={vendors.url}")]
    return [*places, "--service", f"root_crl={vendors.url}/IntelSGXRootCA.der"]


def fetch_all(files: Path, vendors: Vendors) -> None:
    common = ["--cache", files / "cache", *elsewhere(vendors)]
    for arguments in (
        ("snp", files / "report", "--to", files / "snp"),
        ("tdx", files / "quote", "--to", files / "tdx"),
        ("nvidia", files / "gpu", "--chain", files / "chain", "--to", files / "nvidia"),
    ):
        result = run("fetch", *arguments, *common)
        assert (result.exit_code, result.stderr) == (0, "")
        assert " days  " in result.stdout


def test_what_was_fetched_is_what_verify_takes(files: Path, vendors: Vendors, amd: SimulatedAmd) -> None:
    """Files in the folder that was named, as the options of `confide verify` read them."""
    fetch_all(files, vendors)
    names = {
        str(path.relative_to(files)) for room in ("snp", "tdx", "nvidia") for path in (files / room).rglob("*")
    }
    assert {"snp/vek.der", "snp/ask.der", "snp/ark.der", "snp/crl.der", "tdx/collateral.json"} <= names
    assert {"nvidia/rim0.xml", "nvidia/rim1.xml", "nvidia/ocsp/0.der", "nvidia/ocsp/5.der"} <= names
    given = [part for name in ("vek", "ask", "ark", "crl") for part in (f"--{name}", f"{files}/snp/{name}.der")]
    judged = CliRunner().invoke(main, ["verify", "snp", str(files / "report"), *given, "--json"])
    failed = [check["id"] for check in json.loads(judged.stdout)["checks"] if check["outcome"] == "FAIL"]
    # Read and judged, down to what simulated hardware lacks: AMD's root, and its size of keys.
    assert set(failed) == {"ark_pin", "ark_sig", "ask_sig", "vek_sig", "crl_sig"}


def test_status_counts_the_days(files: Path, vendors: Vendors) -> None:
    """What ends first stands first; as JSON with the times themselves."""
    fetch_all(files, vendors)
    shown = run("status", "--cache", files / "cache").stdout.splitlines()
    assert shown[0].endswith("15 documents")
    assert "23 hours  NVIDIA's OCSP answer" in shown[1]
    assert "29 days  " in shown[-1]
    tree = json.loads(run("status", "--cache", files / "cache", "--json").stdout)
    assert [each["expires_at"] for each in tree["documents"]] == sorted(
        each["expires_at"] for each in tree["documents"]
    )
    assert tree["documents"][-1]["fetched_at"] >= NOW


def test_an_air_gapped_machine(
    files: Path, vendors: Vendors, monkeypatch: pytest.MonkeyPatch, device: SimulatedDevice
) -> None:
    """Export here, import there: all is found without a socket, and an enclave's file is made of it."""
    fetch_all(files, vendors)
    assert run("export", files / "carried", "--cache", files / "cache").exit_code == 0

    def no_socket(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", no_socket)
    there = ["--cache", files / "there"]
    assert "took 15 of 15 documents" in run("import", files / "carried", *there).stdout
    assert "took 0 of 15 documents" in run("import", files / "carried", *there).stdout
    for arguments in (
        ("snp", files / "report"),
        ("tdx", files / "quote"),
        ("nvidia", files / "gpu", "--chain", files / "chain"),
    ):
        missing = run("fetch", *arguments, "--offline", "--cache", files / "nothing")
        assert missing.exit_code == 1
        assert len(missing.stderr.splitlines()) == 1
        assert "confide endorsements import" in missing.stderr
        assert "https://" in missing.stderr
        assert run("fetch", *arguments, "--offline", *there, *elsewhere(vendors)).exit_code == 0
    evidence = [{"evidence": _base64(device.report(NONCE)), "certificate": _base64(device.chain)}]
    (files / "gpu.json").write_text(json.dumps(evidence))
    options = ["--snp", files / "report", "--tdx", files / "quote", "--nvidia", files / "gpu.json"]
    assert run("export", files / "enclave", *options, *there).exit_code == 0
    found = parse_endorsements((files / "enclave").read_bytes())
    shown = run("status", files / "enclave").stdout
    assert (shown.count(" days  "), shown.count(" hours  ")) == (10, 6)
    tree = json.loads(run("status", files / "enclave", "--json").stdout)
    assert len(tree["documents"]) == 16
    assert min(each["expires_at"] for each in tree["documents"]) > NOW
    cpu = CpuEvidence(CpuKind.TDX, (files / "quote").read_bytes())
    gpus = (GpuEvidence("HOPPER", device.report(NONCE), device.chain),)
    bundle = EvidenceBundle(b"", b"", b"", NoncePath(()), cpu, gpus)
    (files / "bundle").write_bytes(encode_bundle(bundle, found))
    assert run("export", files / "enclave2", "--bundle", files / "bundle", *there).exit_code == 0
    again = parse_endorsements((files / "enclave2").read_bytes())
    assert (again.snp, again.tdx, again.nvidia) == (None, found.tdx, found.nvidia)
    assert run("fetch", "bundle", files / "bundle", "--offline", *there).exit_code == 0
    assert found.snp is not None
    assert found.snp.vek == (files / "snp" / "vek.der").read_bytes()
    assert found.tdx is not None
    assert found.tdx.collateral == (files / "tdx" / "collateral.json").read_bytes()
    assert found.nvidia is not None
    assert len(found.nvidia.ocsp or ()) == 6


def test_azures_own_certificates(files: Path, vendors: Vendors, amd: SimulatedAmd) -> None:
    """--azure asks the machine."""
    vendors.serve_azure(amd)
    result = run("fetch", "snp", files / "report", "--azure", "--cache", files / "cache", *elsewhere(vendors))
    assert result.exit_code == 0
    assert vendors.asked == ["/metadata/THIM/amd/certification", "/vcek/v1/Genoa/crl"]


def test_a_clouds_own_key(files: Path, vendors: Vendors, amd: SimulatedAmd) -> None:
    """--vlek brings it; without it the line says so."""
    chip = SimulatedAmd.make(NOW, signer="VLEK", keys=amd.keys)
    vendors.serve_amd(chip, NOW)
    (files / "report").write_bytes(chip.sign_report(bytes(64)))
    (files / "vlek").write_bytes(chip.vek)
    there = ["--cache", files / "cache", *elsewhere(vendors)]
    result = run("fetch", "snp", files / "report", *there)
    assert (result.exit_code, "--vlek" in result.stderr) == (1, True)
    assert run("fetch", "snp", files / "report", "--vlek", files / "vlek", *there).exit_code == 0
    for wrong in ("report", "quote", "empty"):
        (files / "empty").touch()
        assert run("fetch", "snp", files / "report", "--vlek", files / wrong, *there).exit_code == 2


def test_a_vendor_that_refuses_is_one_line(files: Path, vendors: Vendors) -> None:
    """Exit 1, the URL, no word of the answer."""
    vendors.routes = {path: Reply(404, b"CANARY") for path in vendors.routes}
    result = run("fetch", "snp", files / "report", "--cache", files / "cache", *elsewhere(vendors))
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "answered 404" in result.stderr
    assert f"{vendors.url}/vcek/v1/Genoa/" in result.stderr
    assert "CANARY" not in result.output


def test_a_damaged_cache_is_said_and_healed(files: Path, vendors: Vendors) -> None:
    """A note, and the document is fetched anew."""
    fetch_all(files, vendors)
    for path in (files / "cache" / "objects").iterdir():
        path.write_bytes(b"junk")
    result = run("fetch", "tdx", files / "quote", "--cache", files / "cache", *elsewhere(vendors))
    assert result.exit_code == 0
    assert result.stderr.count("note: ") == 4
    assert run("fetch", "tdx", files / "quote", "--cache", files / "cache", "--offline").stderr == ""


def test_a_file_of_another_kind_exits_2_with_one_line(files: Path) -> None:
    """Every command, every file: what was expected, and no traceback."""
    (files / "empty").touch()
    with (files / "huge").open("wb") as file:
        file.truncate(1 << 30)
    there = ("--cache", files / "cache", "--offline")
    for arguments in (
        ("fetch", "snp", files / "quote", *there),
        ("fetch", "tdx", files / "report", *there),
        ("fetch", "nvidia", files / "report", *there),
        ("fetch", "nvidia", files / "gpu", *there),
        ("fetch", "nvidia", files / "gpu", "--chain", files / "gpu", *there),
        ("fetch", "nras", files / "report", "--tokens", files / "t", "--jwks", files / "j"),
        ("fetch", "bundle", files / "report", *there),
        ("status", files / "report"),
        ("export", files / "x", "--bundle", files / "report", "--cache", files / "cache"),
        ("export", files / "x", "--tdx", files / "report", "--cache", files / "cache"),
        ("fetch", "snp", files / "empty", *there),
        ("fetch", "tdx", files / "huge", *there),
        ("fetch", "tdx", files / "absent", *there),
        ("fetch", "tdx", files / "quote", "--service", "odd=https://x", *there),
        ("fetch", "tdx", files / "quote", "--service", "pcs=file:///etc", *there),
        ("fetch", "tdx", files / "quote", "--service", "pcs=https://me:CANARY@pcs.invalid", *there),
        ("fetch", "tdx", files / "quote", files / "quote", "--to", files / "to", *there),
        ("fetch", "snp", files / "report", files / "report", "--to", files / "to", *there),
        ("import", files / "report", "--cache", files / "cache"),
        ("import", files / "huge", "--cache", files / "cache"),
        ("import", files / "absent", "--cache", files / "cache"),
        ("export", files / "absent" / "x", "--cache", files / "cache"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, arguments
        assert len(result.stderr.splitlines()) == 1, result.stderr
        assert "CANARY" not in result.stderr


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
