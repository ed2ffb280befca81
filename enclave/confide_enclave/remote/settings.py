"""Settings of an engine in another process: closed, every limit named, nothing beyond this machine."""

import ipaddress
import os
import re
from collections.abc import Callable
from typing import Annotated, Final, Literal, Self

from confide_protocol.errors import ConfigError
from confide_protocol.settings import Settings
from pydantic import Field, field_validator, model_validator

from confide_enclave.remote.servers import SERVERS
from confide_enclave.remote.servers.options import check_command

Seconds = Annotated[float, Field(gt=0, le=24 * 3600)]
Text = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
UNIX: Final = "unix:"
# Of an address of this machine: a name could be anybody's.
_HTTP: Final = re.compile(r"http://(?:(\d{1,3}(?:\.\d{1,3}){3})|\[([0-9a-fA-F:]{2,39})\]):(\d{1,5})/?", re.ASCII)
# What a unix socket's path may have on Linux, beside its end.
MAX_SOCKET_BYTES: Final = 107


class RemoteSettings(Settings):
    """Either `command`, which the enclave starts, watches and stops, or the `url` of a server that is there.

    `version` is what the server must say of itself; it stands in the manifest, as do context and command. Paths are
    relative to the file. `arguments` are the server's own; those that would log prompts, show them to others or
    leave the machine are refused. `environment` is added to a short one of the enclave's; its names are a closed
    list too. `log_file` gets what the server prints until it is ready, `max_log_bytes` of it; later output may show
    prompts and is thrown away.

    A server that ends, or fails `max_health_failures` checks in a row, is started again after `restart_delay_s`,
    then twice as long each time; `max_restarts` times unless it was well for `stable_s` in between.

    `max_requests` are sent to it at once, `max_account_requests` of one account. An answer's first token may take
    `first_token_timeout_s`, each later one `idle_timeout_s`. An event has at most `max_event_bytes` (0: what a
    whole answer would need, since a server joins the tokens for a client that reads slowly).
    """

    kind: Literal["openai"]
    server: Literal["vllm", "sglang", "llama.cpp"] = "vllm"
    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$")]
    command: Annotated[tuple[Text, ...], Field(strict=False, max_length=64)] = ()
    arguments: Annotated[tuple[Text, ...], Field(strict=False, max_length=256)] = ()
    environment: Annotated[dict[str, Text], Field(max_length=64)] = Field(default={}, repr=False)
    log_file: str | None = None
    max_log_bytes: int = Field(default=4 << 20, ge=1024, le=1 << 30)
    url: str | None = None
    api_key_file: str | None = None
    context_tokens: int = Field(default=4_096, ge=16, le=1 << 20)
    max_requests: int = Field(default=64, ge=1, le=65_536)
    max_account_requests: int = Field(default=32, ge=1, le=65_536)
    connect_timeout_s: Seconds = 5.0
    first_token_timeout_s: Seconds = 120.0
    idle_timeout_s: Seconds = 60.0
    max_event_bytes: int = Field(default=0, ge=0, le=1 << 28)
    start_timeout_s: Seconds = 900.0
    poll_interval_s: Seconds = 0.5
    health_interval_s: Seconds = 5.0
    health_timeout_s: Seconds = 10.0
    max_health_failures: int = Field(default=3, ge=1, le=1_000)
    restart_delay_s: Seconds = 1.0
    max_restart_delay_s: Seconds = 60.0
    max_restarts: int = Field(default=5, ge=0, le=1_000)
    stable_s: Seconds = 600.0
    stop_timeout_s: Seconds = 20.0

    @field_validator("url")
    @classmethod
    def _here(cls, url: str | None) -> str | None:
        if url is not None and url.startswith(UNIX):
            path = url.removeprefix(UNIX).encode(errors="surrogateescape")
            if not 0 < len(path) <= MAX_SOCKET_BYTES or b"\0" in path:
                raise ValueError(f'is no socket; write "unix:PATH", a path of at most {MAX_SOCKET_BYTES} bytes')
        elif url is not None:
            found = _HTTP.fullmatch(url)
            if found is None or not _is_loopback(found[1] or found[2]) or not 0 < int(found[3]) < 65_536:
                raise ValueError(
                    'is not of this machine; write "http://127.0.0.1:PORT", "http://[::1]:PORT" or "unix:PATH"'
                )
        return url

    @field_validator("command")
    @classmethod
    def _plain_command(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        check_command(command)
        return command

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        options = SERVERS[self.server].options
        options.check_arguments(self.arguments)
        options.check_environment(self.environment)
        if bool(self.command) == (self.url is not None):
            raise ValueError("`command`, for a server to start, or `url`, of one that is there: name one of them")
        if self.url is not None and (self.arguments or self.environment or self.log_file):
            raise ValueError("`arguments`, `environment` and `log_file` belong to a server that `command` starts")
        if self.command and self.api_key_file is not None:
            raise ValueError("`api_key_file` belongs to `url`; a server that is started here gets a key of its own")
        return self

    def beside(self, resolve: Callable[[str | None], str | None]) -> "RemoteSettings":
        """Return the same with its paths resolved. Raises: ConfigError where a socket's path gets too long."""
        url = self.url
        if url is not None and url.startswith(UNIX):
            path = str(resolve(url.removeprefix(UNIX)))
            if (length := len(os.fsencode(path))) > MAX_SOCKET_BYTES:
                remedy = f"its path has {length} bytes beside this file; a socket's has at most {MAX_SOCKET_BYTES}"
                raise ConfigError(path, "engine.url", remedy)
            url = UNIX + path
        files = {"log_file": resolve(self.log_file), "api_key_file": resolve(self.api_key_file)}
        return self.model_copy(update={"url": url, **files})


def split_http(url: str) -> tuple[str, int]:
    """Return host and port of a checked url."""
    found = _HTTP.fullmatch(url)
    assert found is not None  # noqa: S101 - the settings were checked
    return found[1] or found[2], int(found[3])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
