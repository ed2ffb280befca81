"""What an operator writes in gateway.toml, read once and frozen."""

import re
import stat
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from confide_protocol import settings
from confide_protocol.errors import ConfigError
from pydantic import AfterValidator, Field

Seconds = Annotated[float, Field(gt=0, le=24 * 3600, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0, le=1 << 20)]
Bytes = Annotated[int, Field(ge=1024, le=1 << 30)]

_LISTEN = re.compile(r"(?P<host>\[[0-9a-fA-F:]+\]|[0-9A-Za-z.-]+):(?P<port>[0-9]{1,5})")
_ORIGIN = re.compile(r"https?://[0-9a-z.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")
_SECRET = re.compile(r"[!-~]{32,256}")


def _listen(value: str) -> str:
    match = _LISTEN.fullmatch(value)
    if match is None or int(match["port"]) > 65535:
        raise ValueError('expected "host:port", for example "127.0.0.1:8080"')
    return value


def _origin(value: str) -> str:
    if not _ORIGIN.fullmatch(value):
        raise ValueError('expected an exact origin in lower case, for example "https://chat.example"; no wildcard')
    return value


def _url(value: str) -> str:
    parts = urlsplit(value)
    try:
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError('expected "http://host:port" or "https://host:port" and nothing after it')
    return f"{parts.scheme}://{parts.netloc}"


class Enclave(settings.Settings):
    """One node of the directory. `ca_file` pins the TLS roots of an https node; it has no part in attestation."""

    url: Annotated[str, AfterValidator(_url)]
    secret_file: str
    ca_file: str | None = None


class Appraisal(settings.Settings):
    """How often nodes are judged again; `interval_s` stays below the grace of a rotated keyset."""

    interval_s: Annotated[float, Field(gt=0, le=240)] = 60.0
    retry_s: Seconds = 2.0
    health_interval_s: Seconds = 5.0
    max_age_s: Seconds = 300.0


class Limits(settings.Settings):
    """Every bound on what a client or a node may take. Times in seconds, sizes in bytes of ciphertext."""

    request_head_bytes: Bytes = 16 * 1024
    request_head_s: Seconds = 10.0
    request_body_bytes: Bytes = (4 << 20) + (8 << 10)  # a bucket of 4 MiB and what sealing adds, as at the enclave
    request_body_s: Seconds = 120.0
    request_body_idle_s: Seconds = 15.0
    write_stall_s: Seconds = 30.0
    keepalive_s: Seconds = 15.0
    connections: Count = 4096
    connect_s: Seconds = 3.0
    first_byte_s: Seconds = 300.0
    stream_idle_s: Seconds = 60.0
    evidence_s: Seconds = 30.0
    search_s: Seconds = 5.0
    node_exchanges: Count = 1024
    node_keepalive_s: Seconds = 3.0
    stop_grace_s: Seconds = 30.0


class Dialects(settings.Settings):
    """What passes beside OHTTP, to nodes whose attested keyset offers it."""

    ehbp: bool = False


class Log(settings.Settings):
    """`requests` writes one line for each exchange: account, status, duration."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    requests: bool = False


class GatewaySettings(settings.Settings):
    """The whole file. Paths are relative to the folder that the file lies in."""

    listen: Annotated[str, AfterValidator(_listen)]
    policy: str
    api_keys_file: str
    enclaves: Annotated[tuple[Enclave, ...], Field(strict=False, min_length=1, max_length=256)]
    allow_simulated: bool = False
    cors_origins: Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], Field(strict=False)] = ()
    forwarder: Literal["httptools", "httpx"] = "httptools"
    limits: Limits = Limits()
    appraisal: Appraisal = Appraisal()
    dialects: Dialects = Dialects()
    log: Log = Log()

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def read_file(path: Path, field: str) -> bytes:
    """Read a file that a setting names. Raises: ConfigError naming `field`."""
    try:
        return path.read_bytes()
    except OSError as fault:
        why = fault.strerror or type(fault).__name__
        raise ConfigError(str(path), field, f"cannot be read ({why}); create it or mend the path") from None


def load_settings(path: Path) -> GatewaySettings:
    """Read gateway.toml. Raises: ConfigError."""
    read = settings.parse_toml(read_file(path, "file"), GatewaySettings, str(path))
    urls = [enclave.url for enclave in read.enclaves]
    if len(set(urls)) != len(urls):
        raise ConfigError(str(path), "enclaves", "names one url twice; remove the second")
    return read


def read_secret(path: Path) -> str:
    """Read a node's bearer secret: one line of 32 to 256 visible characters in a file for its owner alone.

    Raises: ConfigError; its text never holds the secret.
    """
    data = read_file(path, "secret_file")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(str(path), "secret_file", f"is open to others; run: chmod 600 {path}")
    secret = data.decode("ascii", "replace").strip()
    if not _SECRET.fullmatch(secret):
        raise ConfigError(str(path), "secret_file", "needs one line of 32 to 256 visible ASCII characters")
    return secret
