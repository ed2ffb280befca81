"""Each platform from a statement to a quote, on simulated devices."""

import asyncio
import base64
import errno
import hashlib
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from confide_attestation.evidence import (
    CpuKind,
    Endorsements,
    EventLog,
    GpuEvidence,
    SnpEndorsements,
    TdxEndorsements,
)
from confide_attestation.policy import SimulatedRoots
from confide_attestation.snp.judge import judge_snp
from confide_attestation.tdx.judge import judge_tdx
from confide_attestation.vtpm.azure import TdxPlatform
from confide_attestation.vtpm.judge import judge_azure
from confide_enclave.attester import Quote
from confide_enclave.collect.attesters import Machine
from confide_enclave.collect.choose import PLATFORMS, choose_attester
from confide_enclave.errors import DeviceUnavailable
from confide_protocol.errors import LocalStateError

from tests.shared import shared_path
from tests.unit.enclave.collect.agents import agent, always, service
from tests.unit.enclave.collect.conftest import NOW
from tests.unit.enclave.collect.kernel import ARK, ASK, ROOT, VCEK, SevGuest, TdxGuest, Tsm, fault, table
from tests.unit.enclave.collect.vtpm import Vtpm

pytestmark = pytest.mark.anyio
STATEMENT = b"a statement"
DATA = hashlib.sha512(STATEMENT).digest()
RECORDED = ("evidence", "tdx", "dstack_quote_report_json__20260305")


def machine(**parts) -> Machine:
    return Machine(timeout_s=5, **{"tsm_root": ROOT, **parts})


def judged(quote: Quote, roots: SimulatedRoots, by: SnpEndorsements | TdxEndorsements | TdxPlatform) -> None:
    """Hold every check of the real verifier to what was collected, and what it is bound to to the statement."""
    cpu, bound = quote.cpu, DATA
    tdx = TdxEndorsements(by.collateral_json) if isinstance(by, TdxPlatform) else by
    if cpu.vtpm is not None:
        bound = hashlib.sha256(STATEMENT).digest()
        given = Endorsements(tdx=tdx) if isinstance(tdx, TdxEndorsements) else Endorsements(snp=tdx)
        part = judge_azure(cpu.report, cpu.vtpm, given, None, roots, now_unix_s=NOW, nonce=bound)
    elif isinstance(tdx, TdxEndorsements):
        part = judge_tdx(cpu.report, tdx, None, roots, now_unix_s=NOW)
    else:
        part = judge_snp(cpu.report, tdx, None, roots, now_unix_s=NOW)
    assert part.holds, [check for check in part.checks if check.outcome == "FAIL"]
    assert part.bound == bound


async def test_sev_snp_by_tsm_offers_the_hosts_certificates(amd, roots):
    """The report holds SHA-512 of the statement."""
    tsm = Tsm(amd.sign_report, auxblob=table((VCEK, amd.vek), (ASK, amd.ask), (ARK, amd.ark)))
    quote = await choose_attester("sev-snp", machine(files=tsm)).quote(STATEMENT)
    assert quote.cpu.kind is CpuKind.SEV_SNP
    assert quote.endorsements == Endorsements(snp=SnpEndorsements(vek=amd.vek, ask=amd.ask, ark=amd.ark))
    judged(quote, roots, quote.endorsements.snp)
    assert quote.event_logs == ()


async def test_sev_snp_on_bare_metal_offers_nothing(amd):
    """Without certificates from the host the quote stands alone."""
    attester = choose_attester("sev-snp", machine(files=Tsm(amd.sign_report)))
    assert (await attester.quote(STATEMENT)).endorsements == Endorsements()


async def test_sev_snp_by_the_older_device(amd, roots, tmp_path):
    """Where tsm is absent /dev/sev-guest is asked."""
    path = tmp_path / "sev-guest"
    path.touch()
    driver = SevGuest(amd.sign_report, table=table((VCEK, amd.vek)))
    place = machine(tsm_root=tmp_path / "absent", sev_guest=path, ioctl=driver)
    quote = await choose_attester("sev-snp", place).quote(STATEMENT)
    assert quote.endorsements.snp == SnpEndorsements(vek=amd.vek)
    judged(quote, roots, amd.endorsements)


async def test_sev_snp_without_any_device_names_both(tmp_path):
    """A laptop is told what is missing."""
    place = machine(tsm_root=tmp_path / "report", sev_guest=tmp_path / "sev-guest")
    with pytest.raises(DeviceUnavailable, match=r"neither .*report nor .*sev-guest is there; .*modprobe sev-guest"):
        await choose_attester("sev-snp", place).quote(STATEMENT)


@pytest.mark.parametrize(
    ("sign", "said"),
    [
        (lambda amd, data: amd.sign_report(bytes(64)), "to another question"),
        (lambda amd, data: amd.sign_report(data)[:-1], "no SEV-SNP report"),
        (lambda amd, data: b"", "no SEV-SNP report"),
    ],
)
async def test_another_sev_snp_answer_gives_no_bytes(amd, sign, said):
    """A replayed report, a short one, nothing."""
    tsm = Tsm(lambda data: sign(amd, data))
    with pytest.raises(DeviceUnavailable, match=said):
        await choose_attester("sev-snp", machine(files=tsm)).quote(STATEMENT)


class TdxMachine(Tsm):
    """A kernel with a firmware's event log beside configfs."""

    ccel: bytes | OSError | None = None

    def exists(self, path: Path) -> bool:
        return self.ccel is not None if path.name == "CCEL" else super().exists(path)

    def read(self, path: Path, limit: int) -> bytes:
        if path.name != "CCEL":
            return super().read(path, limit)
        if isinstance(self.ccel, bytes):
            return self.ccel
        assert self.ccel is not None
        raise self.ccel


@pytest.mark.parametrize(("ccel", "logs"), [(None, ()), (Path("CCEL"), (EventLog("ccel", b"log"),))])
async def test_tdx_by_tsm(intel, roots, ccel, logs):
    """The verifier accepts the quote; the firmware's log goes with it only if the settings name it."""
    tsm = TdxMachine(intel.sign_quote, provider="tdx_guest")
    tsm.ccel = b"log"
    quote = await choose_attester("tdx", machine(files=tsm, ccel=ccel)).quote(STATEMENT)
    judged(quote, roots, TdxEndorsements(intel.collateral()))
    assert quote.cpu.kind is CpuKind.TDX
    assert quote.event_logs == logs


async def test_a_tdx_quote_with_padding_is_read(intel):
    """Some hosts pad with zeros."""
    tsm = TdxMachine(lambda data: intel.sign_quote(data).ljust(8000, b"\0"), provider="tdx_guest")
    assert len((await choose_attester("tdx", machine(files=tsm)).quote(STATEMENT)).cpu.report) == 8000


@pytest.mark.parametrize(("code", "said"), [(errno.EACCES, "permission denied"), (errno.ENOENT, "CCEL: ")])
async def test_an_event_log_that_cannot_be_read_is_a_fault(intel, code, said):
    """The file is root's: leaving the log out silently would fail at the client."""
    tsm = TdxMachine(intel.sign_quote, provider="tdx_guest")
    tsm.ccel = fault(code)
    with pytest.raises(DeviceUnavailable, match=said):
        await choose_attester("tdx", machine(files=tsm, ccel=Path("CCEL"))).quote(STATEMENT)


@pytest.mark.parametrize(
    ("sign", "said"),
    [
        (lambda intel, data: intel.sign_quote(bytes(64)), "to another question"),
        (lambda intel, data: intel.sign_quote(data)[:600], "no TDX quote"),
    ],
)
async def test_another_tdx_answer_gives_no_bytes(intel, sign, said):
    """A replayed quote, a short one."""
    tsm = TdxMachine(lambda data: sign(intel, data), provider="tdx_guest")
    with pytest.raises(DeviceUnavailable, match=said):
        await choose_attester("tdx", machine(files=tsm)).quote(STATEMENT)


async def test_tdx_without_a_quoting_path_says_so(tmp_path):
    """A TDREPORT alone proves nothing to others; without even that the module is named."""
    path = tmp_path / "tdx_guest"
    place = machine(tsm_root=tmp_path / "report", tdx_guest=path, ioctl=TdxGuest())
    with pytest.raises(DeviceUnavailable, match="modprobe tdx_guest"):
        await choose_attester("tdx", place).quote(STATEMENT)
    path.touch()
    with pytest.raises(DeviceUnavailable, match="nothing here can have them quoted"):
        await choose_attester("tdx", place).quote(STATEMENT)


def logged(quote: bytes) -> dict[str, str]:
    event = {"imr": 3, "event_type": 0x08000001, "digest": "00" * 48, "event": "x", "event_payload": ""}
    return {"quote": quote.hex(), "event_log": json.dumps([event]), "report_data": DATA.hex(), "vm_config": "{}"}


async def test_dstack_gives_quote_and_log(intel, roots, tmp_path):
    """The verifier accepts the simulated quote; the log lies beside it."""
    answer = logged(intel.sign_quote(DATA))
    with agent(tmp_path / "dstack.sock", always(200, answer)) as path:
        quote = await choose_attester("dstack", machine(dstack_socket=path)).quote(STATEMENT)
    judged(quote, roots, TdxEndorsements(intel.collateral()))
    assert quote.cpu.kind is CpuKind.TDX
    assert quote.event_logs == (EventLog("dstack", answer["event_log"].encode()),)


async def test_a_recorded_dstack_answer_is_to_another_question(tmp_path):
    """Real silicon's answer to somebody else is refused by its report data."""
    recorded = (shared_path(*RECORDED) / "getquote.json").read_bytes()
    with (
        agent(tmp_path / "dstack.sock", always(200, recorded)) as path,
        pytest.raises(DeviceUnavailable, match="to another question"),
    ):
        await choose_attester("dstack", machine(dstack_socket=path)).quote(STATEMENT)


async def test_a_dstack_log_that_cannot_be_read_is_a_fault(intel, tmp_path):
    """It would fail at the client otherwise."""
    answer = {**logged(intel.sign_quote(DATA)), "event_log": "{}"}
    with (
        agent(tmp_path / "dstack.sock", always(200, answer)) as path,
        pytest.raises(DeviceUnavailable, match="its event log cannot be read"),
    ):
        await choose_attester("dstack", machine(dstack_socket=path)).quote(STATEMENT)


async def test_azure_sev_snp_binds_the_statement_in_the_tpms_quote(azure_snp, roots):
    """SHA-256 of the statement is the quote's nonce."""
    hcl, platform = azure_snp.machine()
    place = machine(open_tpm=Vtpm(azure_snp, hcl).open)
    quote = await choose_attester("azure-sev-snp", place).quote(STATEMENT)
    assert quote.cpu.kind is CpuKind.AZURE_SEV_SNP
    judged(quote, roots, platform)


async def test_azure_tdx_asks_the_metadata_service(azure_tdx, roots):
    """The TDREPORT goes out, the quote comes in, and the verifier accepts all of it."""
    hcl, platform = azure_tdx.machine()
    assert isinstance(platform, TdxPlatform)
    answer = {"quote": base64.urlsafe_b64encode(platform.quote).decode()}
    with service(always(200, answer)) as url:
        place = machine(open_tpm=Vtpm(azure_tdx, hcl).open, imds_url=url)
        quote = await choose_attester("azure-tdx", place).quote(STATEMENT)
    judged(quote, roots, platform)


async def test_azure_without_a_tpm_names_the_remedy(tmp_path):
    """The device's path and what to do."""
    place = machine(tpm=tmp_path / "tpmrm0")
    with pytest.raises(DeviceUnavailable, match="tpmrm0: No such file or directory; it needs an Azure"):
        await choose_attester("azure-tdx", place).quote(STATEMENT)


async def test_a_hung_device_does_not_hold_its_caller(amd):
    """The settings' time limit counts for every platform."""
    tsm = Tsm(lambda data: (release.wait(), amd.sign_report(data))[1])
    release = threading.Event()
    attester = choose_attester("sev-snp", replace(machine(files=tsm), timeout_s=0.05))
    with pytest.raises(DeviceUnavailable, match=f"{ROOT}: no answer within 0.05 s"):
        await attester.quote(STATEMENT)
    release.set()
    for _ in range(1000):
        await asyncio.sleep(0.01)
        if not tsm.entries:
            break
    assert tsm.entries == {}


async def test_gpus_are_those_of_the_source():
    """None without a source; asked with the caller's nonce otherwise."""

    class Source:
        async def states(self):
            return ()

        async def make_ready(self):
            return None

        async def evidence(self, nonce):
            return (GpuEvidence("HOPPER", nonce, b"chain"),)

    assert await choose_attester("tdx", machine()).gpus(bytes(32)) == ()
    attester = choose_attester("tdx", machine(), Source())
    assert await attester.gpus(bytes(32)) == (GpuEvidence("HOPPER", bytes(32), b"chain"),)


def test_every_platform_has_its_name():
    """The names of the settings, none of them simulated."""
    assert PLATFORMS == ("sev-snp", "tdx", "azure-sev-snp", "azure-tdx", "dstack")
    for platform in PLATFORMS:
        attester = choose_attester(platform, machine())
        assert (attester.platform, attester.simulated) == (platform, False)
    with pytest.raises(LocalStateError, match="sev-snp, tdx, azure-sev-snp, azure-tdx, dstack are"):
        choose_attester("simulated-tdx", machine())
