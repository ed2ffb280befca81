"""Real hardware behind the one `Attester` protocol: each platform is one function from a statement to a quote."""

import fcntl
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.eventlog.dstack import parse_list
from confide_attestation.evidence import (
    MAX_PART_BYTES,
    CpuEvidence,
    CpuKind,
    Endorsements,
    EventLog,
    GpuEvidence,
)
from confide_attestation.snp.abi import parse_report
from confide_attestation.tdx.abi import parse_quote

from confide_enclave.attester import Quote
from confide_enclave.collect.azure import collect_azure
from confide_enclave.collect.certificates import parse_certificate_table
from confide_enclave.collect.device import Device
from confide_enclave.collect.dstack import DSTACK_SOCKET, read_dstack
from confide_enclave.collect.files import Files, unavailable
from confide_enclave.collect.imds import IMDS_URL, quote_tdreport
from confide_enclave.collect.nvml import GpuSource
from confide_enclave.collect.sev_guest import SEV_GUEST, read_sev_guest
from confide_enclave.collect.tdx_guest import TDX_GUEST, read_tdreport
from confide_enclave.collect.tpm import TPM, OpenTpm, Tpm, open_tpm
from confide_enclave.collect.tsm import TSM_ROOT, Provider, TsmReport, read_tsm
from confide_enclave.errors import DeviceUnavailable

Ioctl = Callable[[int, int, bytearray], object]
Collect = Callable[[bytes], Quote]


@dataclass(frozen=True)
class Machine:
    """Where a machine's devices are, and how they are reached. A test puts its own here.

    `ccel` is the firmware's event log, and given only where it shall go with the evidence: profiles that do not
    know it refuse it.
    """

    timeout_s: float
    tsm_root: Path = TSM_ROOT
    sev_guest: Path = SEV_GUEST
    tdx_guest: Path = TDX_GUEST
    ccel: Path | None = None
    tpm: Path = TPM
    imds_url: str = IMDS_URL
    dstack_socket: Path = DSTACK_SOCKET
    files: Files = field(default_factory=Files)
    ioctl: Ioctl = fcntl.ioctl
    open_tpm: Callable[[Path], OpenTpm] = open_tpm
    random: Callable[[int], bytes] = os.urandom


@dataclass(frozen=True)
class HardwareAttester:
    """One machine's TEE. Quotes are asked for one at a time."""

    platform: str
    device: Device
    collect: Collect
    gpu_source: GpuSource | None = None
    simulated: bool = False

    async def gpus(self, nonce: bytes) -> tuple[GpuEvidence, ...]:
        """Return every GPU's evidence; none where the platform is run without. Raises: DeviceUnavailable."""
        return () if self.gpu_source is None else await self.gpu_source.evidence(nonce)

    async def quote(self, statement: bytes) -> Quote:
        """Have the hardware sign a statement. Raises: DeviceUnavailable."""
        return await self.device.call(lambda: self.collect(statement))


def collect_snp(machine: Machine, statement: bytes) -> Quote:
    """Through configfs-tsm, or /dev/sev-guest where the kernel is older."""
    report_data = hashlib.sha512(statement).digest()
    if machine.files.exists(machine.tsm_root):
        path, answer = machine.tsm_root, _tsm(machine, report_data, Provider.SNP)
        report, table = answer.outblob, answer.auxblob
    elif machine.files.exists(machine.sev_guest):
        path = machine.sev_guest
        direct = read_sev_guest(report_data, path=path, ioctl=machine.ioctl)
        report, table = direct.report, direct.certificates
    else:
        raise DeviceUnavailable(
            f"neither {machine.tsm_root} nor {machine.sev_guest} is there; it needs an SEV-SNP guest with the "
            "module sev-guest (modprobe sev-guest) and, for the first, configfs mounted"
        )
    try:
        answered = parse_report(report).report_data
    except EvidenceMalformed as fault:
        raise DeviceUnavailable(f"{path}: what it gave is no SEV-SNP report: {fault}") from None
    _expect(path, answered == report_data)
    return Quote(
        cpu=CpuEvidence(CpuKind.SEV_SNP, report), endorsements=Endorsements(snp=parse_certificate_table(table))
    )


def collect_tdx(machine: Machine, statement: bytes) -> Quote:
    """Through configfs-tsm, with the firmware's event log if the settings name it."""
    report_data = hashlib.sha512(statement).digest()
    if not machine.files.exists(machine.tsm_root):
        # Older kernels give a TDREPORT, which only a quoting service can sign, and none is in reach without tsm.
        read_tdreport(report_data, path=machine.tdx_guest, ioctl=machine.ioctl)
        raise DeviceUnavailable(
            f"{machine.tdx_guest} gives TDREPORTs, but nothing here can have them quoted: {machine.tsm_root} is "
            "not there; it needs Linux 6.7 or later, configfs mounted and a quoting service on the host. On Azure "
            'set `platform` to "azure-tdx", on dstack to "dstack"'
        )
    quote = _tsm(machine, report_data, Provider.TDX).outblob
    _expect_quote(machine.tsm_root, quote, report_data)
    return Quote(cpu=CpuEvidence(CpuKind.TDX, quote), event_logs=_ccel(machine))


def collect_dstack(machine: Machine, statement: bytes) -> Quote:
    """Through dstack's guest agent, which adds the log that replays into the quote's registers."""
    report_data = hashlib.sha512(statement).digest()
    socket = machine.dstack_socket
    answer = read_dstack(report_data, socket=socket, timeout_s=machine.timeout_s)
    _expect_quote(socket, answer.quote, report_data)
    try:
        parse_list(answer.event_log)
    except EvidenceMalformed as fault:
        raise DeviceUnavailable(f"{socket}: its event log cannot be read: {fault}") from None
    log = EventLog("dstack", answer.event_log)
    return Quote(cpu=CpuEvidence(CpuKind.TDX, answer.quote), event_logs=(log,))


def collect_azure_vm(machine: Machine, kind: CpuKind, statement: bytes) -> Quote:
    """Through the vTPM, and on TDX the metadata service."""

    def quote_report(report: bytes) -> bytes:
        return quote_tdreport(report, base_url=machine.imds_url, timeout_s=machine.timeout_s)

    with machine.open_tpm(machine.tpm) as exchange:
        cpu = collect_azure(hashlib.sha256(statement).digest(), kind, Tpm(exchange, machine.tpm), quote_report)
    return Quote(cpu=cpu)


def _tsm(machine: Machine, report_data: bytes, provider: Provider) -> TsmReport:
    return read_tsm(report_data, provider, root=machine.tsm_root, files=machine.files, random=machine.random)


def _ccel(machine: Machine) -> tuple[EventLog, ...]:
    if machine.ccel is None:
        return ()
    try:
        return (EventLog("ccel", machine.files.read(machine.ccel, MAX_PART_BYTES)),)
    except OSError as fault:
        raise unavailable(machine.ccel, fault, "the firmware's event log is gone") from None


def _expect_quote(path: Path, quote: bytes, report_data: bytes) -> None:
    try:
        answered = parse_quote(quote).field("report_data")
    except EvidenceMalformed as fault:
        raise DeviceUnavailable(f"{path}: what it gave is no TDX quote: {fault}") from None
    _expect(path, answered == report_data)


def _expect(path: Path, same: bool) -> None:
    if not same:
        raise DeviceUnavailable(f"{path}: its answer is to another question: the report data differ")
