"""Write a machine's evidence into files, for fetching what the vendors say of it: no keys, nothing bound."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path

from confide_attestation.evidence import CpuEvidence, CpuKind, GpuEvidence
from confide_protocol.errors import ConfigError

from confide_enclave.attester import Attester
from confide_enclave.keys import Random, fresh

_NAMES = {CpuKind.SEV_SNP: "report.bin", CpuKind.TDX: "quote.bin"}


async def collect_evidence(attester: Attester, *, random: Random) -> dict[str, bytes]:
    """Ask CPU and GPUs with nonces of our own; return files by their names. Raises: DeviceUnavailable."""
    nonce = fresh(random, 32)
    gpus = await attester.gpus(nonce)
    files = _cpu((await attester.quote(fresh(random, 32))).cpu)
    if gpus:
        files["gpus.json"] = json.dumps([_device(gpu, nonce) for gpu in gpus], indent=1).encode()
    return files


def write_files(files: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write into a folder, which is made if need be. Raises: ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
    except OSError as fault:
        remedy = f"cannot be written ({fault.strerror}); name a folder of yours"
        raise ConfigError(str(folder), "--collect", remedy) from None
    return [folder / name for name in files]


def _cpu(cpu: CpuEvidence) -> dict[str, bytes]:
    files = {_NAMES.get(cpu.kind, "hcl.bin"): cpu.report}
    if cpu.vtpm is not None and cpu.vtpm.td_quote:
        files["quote.bin"] = cpu.vtpm.td_quote
    return files


def _device(gpu: GpuEvidence, nonce: bytes) -> dict[str, str]:
    """Return NVIDIA's own form of evidence, as its tools write it."""
    return {
        "arch": gpu.architecture,
        "nonce": nonce.hex(),
        "evidence": base64.b64encode(gpu.report).decode(),
        "certificate": base64.b64encode(gpu.certificate_chain).decode(),
    }
