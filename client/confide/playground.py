"""Device, enclave and gateway as processes of their own on loopback: SIMULATED hardware, for demo and tests."""

import hashlib
import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import sysconfig
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx2
from confide_attestation.policy_text import SimulatedGpus, simulated_policy, simulated_tdx_policy
from confide_protocol.errors import ConfigError

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 5.0
READY_TIMEOUT_S = 30.0
POLICY_LIFETIME_S = 30 * 86_400
MAX_LINE_BYTES = 1 << 20
MAX_REASON_CHARS = 400

MEASUREMENT = hashlib.sha384(b"the playground's image").hexdigest()

ENCLAVE = """\
listen = "127.0.0.1:{port}"
gateway_secret_file = "gateway.secret"
platform = "simulated-{platform}"
device_socket = "device.sock"
endorsements_file = "endorsements/endorsements.cbor"
"""

GPU_ROOTS = """
[simulated]
nvidia_device_root_spki_sha256 = "{nvidia_device_root_spki_sha256}"
nvidia_rim_root_spki_sha256 = "{nvidia_rim_root_spki_sha256}"
"""

GATEWAY = """\
listen = "127.0.0.1:{port}"
policy = "policy.toml"
allow_simulated = true
api_keys_file = "keys.toml"
"""


Platform = Literal["sev-snp", "tdx"]


class PlaygroundFailed(ConfigError):
    """A process of the playground did not start or did not stay up; the message has its last words."""

    code = "playground"

    def __init__(self, name: str, words: str) -> None:
        super().__init__("playground", name, words)


class Child:
    """A process that says on its first line of stdout, in JSON, that it is ready. Its stderr goes to a file."""

    def __init__(self, name: str, argv: Sequence[str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        try:
            with self.log.open("wb") as log:
                # A session of its own: Ctrl-C reaches us alone, and we stop the children in order.
                self.process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
                )
        except OSError as fault:
            raise PlaygroundFailed(
                name, f"{argv[0]} cannot be run ({fault.strerror}); is confide installed?"
            ) from None

    def ready(self, timeout_s: float = START_TIMEOUT_S) -> dict[str, Any]:
        """Wait for the first line. Raises: PlaygroundFailed with the process's own last words."""
        assert self.process.stdout is not None  # noqa: S101 - opened as a pipe above
        deadline_s = time.monotonic() + timeout_s
        line = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in line:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or not selector.select(left_s):
                    raise PlaygroundFailed(self.name, f"not ready within {timeout_s:.0f} s")
                data = os.read(self.process.stdout.fileno(), 65536)
                line += data
                if not data or len(line) > MAX_LINE_BYTES:
                    raise PlaygroundFailed(self.name, self.last_words())
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise PlaygroundFailed(self.name, "its first line is not JSON")
        return said

    def last_words(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        words = lines[-1].strip() if lines else f"ended with status {self.process.returncode} and said nothing"
        return words[:MAX_REASON_CHARS]

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@dataclass
class Playground:
    """The running processes and what a client needs to talk to them."""

    folder: Path
    shape: str = "bucketed"
    platform: Platform = "sev-snp"
    gpus: int = 1
    gateway_url: str = ""
    api_key: str = field(default="", repr=False)
    children: dict[str, Child] = field(default_factory=dict)

    @property
    def policy_file(self) -> Path:
        return self.folder / "policy.toml"

    def spawn(self, name: str, *argv: str) -> Child:
        child = self.children[name] = Child(name, argv, self.folder)
        return child

    def confide(self, name: str, *arguments: str) -> Child:
        return self.spawn(name, sys.executable, "-m", "confide.cli", *arguments)

    def stop(self, name: str) -> None:
        if name in self.children:
            self.children.pop(name).stop()

    def stop_all(self) -> None:
        for name in reversed(list(self.children)):
            self.stop(name)

    def check(self) -> None:
        """Raises: PlaygroundFailed when a process has ended by itself."""
        for child in self.children.values():
            if child.process.poll() is not None:
                raise PlaygroundFailed(child.name, child.last_words())

    def start_device(self) -> Child:
        device = Path(sysconfig.get_path("scripts")) / "confide-sim"
        return self.spawn(
            "device", str(device), "--socket", f"{self.folder}/device.sock", "--endorsements-dir",
            f"{self.folder}/endorsements", "--measurement", MEASUREMENT, "--platform", self.platform,
            "--gpus", str(self.gpus),
        )  # fmt: skip

    def start_enclave(self, config: str = "enclave.toml", name: str = "enclave") -> Child:
        return self.confide(name, "enclave", "--config", str(self.folder / config))

    def start_gateway(self, enclave_urls: Sequence[str], port: int = 0, settings: str = "") -> None:
        """Start the gateway over these enclaves and wait until it has verified at least one of them."""
        nodes = "".join(f'\n[[enclaves]]\nurl = "{url}"\nsecret_file = "gateway.secret"\n' for url in enclave_urls)
        self.write("gateway.toml", GATEWAY.format(port=port) + settings + nodes)
        gateway = self.confide("gateway", "gateway", "--config", str(self.folder / "gateway.toml"))
        self.gateway_url = gateway.ready()["url"]
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        with httpx2.Client(trust_env=False, timeout=READY_TIMEOUT_S) as client:
            while True:
                self.check()
                with suppress(httpx2.TransportError):
                    if client.get(self.gateway_url + "/readyz").status_code == 200:
                        return
                if time.monotonic() > deadline_s:
                    raise PlaygroundFailed("gateway", f"verified no enclave; {gateway.last_words()}")
                time.sleep(0.05)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    def write_policy(self, device: Mapping[str, Any], manifest_digest: str, name: str = "policy.toml") -> Path:
        """Write the policy that accepts this very device and manifest."""

        def pin(field: str) -> bytes:
            return bytes.fromhex(device[field])

        gpus = None
        if self.gpus:
            roots = pin("nvidia_device_root_spki_sha256"), pin("nvidia_rim_root_spki_sha256")
            gpus = SimulatedGpus(self.gpus, *roots, device["driver"], device["firmware"])
        root = "amd_ark_sha256" if self.platform == "sev-snp" else "intel_root_sha256"
        common: dict[str, Any] = {
            "manifest_digest": bytes.fromhex(manifest_digest),
            "not_after_unix_s": int(time.time()) + POLICY_LIFETIME_S,
            # Several playgrounds may be known to one user: each has a policy of its own.
            "policy_id": f"playground-{device[root][:8]}",
            "shape": self.shape,
            "gpus": gpus,
        }
        if self.platform == "sev-snp":
            text = simulated_policy(ark_sha256=pin(root), measurement=pin("measurement"), **common)
        else:
            rtmrs = [bytes.fromhex(value) for value in device["rtmrs"]]
            text = simulated_tdx_policy(root_sha256=pin(root), mr_td=pin("mr_td"), rtmrs=rtmrs, **common)
        return self.write(name, text)

    def start(
        self, *, port: int = 0, enclave_port: int = 0, enclave_settings: str = "", gateway_settings: str = ""
    ) -> str:
        """Start everything and return the enclave's URL.

        The policy pins this very device and the manifest of the enclave's own files.
        """
        self.write("gateway.secret", secrets.token_hex(32))
        settings = ENCLAVE.format(port=enclave_port, platform=self.platform)
        device = self.start_device()
        # The manifest says that there are GPUs, and not whose: it is measured while they start.
        gpus = ("gpus = true\n", GPU_ROOTS) if self.gpus else ("", "")
        nobody = gpus[1].format_map(defaultdict(lambda: "00" * 32))
        config = str(self.write("manifest.toml", settings + gpus[0] + enclave_settings + nobody))
        measuring = self.confide("manifest", "enclave", "--config", config, "--manifest")
        keys = self.confide("keys", "keys", "new", "--file", f"{self.folder}/keys.toml", "--label", "you", "--json")
        device_says = device.ready()
        roots = gpus[1].format_map(device_says)
        self.write("enclave.toml", settings + gpus[0] + enclave_settings + roots)
        enclave = self.start_enclave()
        self.write_policy(device_says, measuring.ready()["manifest_digest"])
        self.api_key = keys.ready()["key"]
        self.stop("manifest")
        self.stop("keys")
        enclave_url: str = enclave.ready()["url"]
        self.start_gateway([enclave_url], port, gateway_settings)
        return enclave_url


@contextmanager
def playground(
    folder: Path, *, shape: str = "bucketed", platform: Platform = "sev-snp", gpus: int = 1
) -> Iterator[Playground]:
    """Give a playground in `folder` (0700); its processes end with the block, however the block ends."""
    folder.chmod(0o700)
    ground = Playground(folder, shape, platform, gpus)
    with ExitStack() as stack:
        stack.callback(ground.stop_all)
        yield ground


@contextmanager
def stopping() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that blocks like `playground` clean up."""

    def stop(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
