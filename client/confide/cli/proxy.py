"""`confide proxy`: OpenAI's plain API on this machine, for programs in any language."""

import os
from dataclasses import replace
from pathlib import Path

import click
from confide_protocol.errors import ConfigError

from confide.cli import options
from confide.fetch import Limits
from confide.proxy.app import Bounds
from confide.relay import Relay

LISTEN = "127.0.0.1:8788"


@click.command()
@click.option("--base-url", "url", required=True, help="The gateway, with or without /v1.")
@options.policy
@options.allow_simulated
@options.api_key_file
@click.option(
    "--listen", metavar="HOST:PORT", help=f"Address of loopback; port 0 is any free one.  [default: {LISTEN}]"
)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    help="Listen on a unix socket of mode 0600 instead; no token is asked for there.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Token that callers give as API key; made where it is not there.  [default: …/confide/proxy.token]",
)
@click.option("--no-token", is_flag=True, help="Let every program and user of this machine use the gateway's key.")
@click.option("--max-in-flight", type=click.IntRange(1), default=Bounds.max_in_flight, show_default=True)
@click.option("--max-request-bytes", type=click.IntRange(1024), default=Limits.max_request_bytes, show_default=True)
@click.option("--max-answer-bytes", type=click.IntRange(1024), default=Limits.max_answer_bytes, show_default=True)
@click.option("--answer-timeout", type=click.FloatRange(1), default=Bounds.answer_timeout_s, show_default=True)
@click.option("--recover", type=click.FloatRange(0), default=Limits.recover_s, show_default=True)
@click.option("--stop-grace", type=click.FloatRange(1), default=Bounds.stop_grace_s, show_default=True)
def proxy(
    url: str,
    policy_file: Path,
    allow_simulated: bool,
    api_key_file: Path | None,
    listen: str | None,
    socket: Path | None,
    token_file: Path | None,
    no_token: bool,
    max_in_flight: int,
    max_request_bytes: int,
    max_answer_bytes: int,
    answer_timeout: float,
    recover: float,
    stop_grace: float,
) -> None:
    """Serve OpenAI's API in clear on this machine, and send it on sealed to an enclave that was verified.

    With the gateway's key (--api-key-file or $CONFIDE_API_KEY) callers show a token of this machine instead;
    without it, each caller's own API key goes to the gateway. No request is ever sent in clear (the gateway's API
    key travels outside the seal, so use https). With a key of its own the proxy starts only before an enclave that
    it has verified; without one it verifies when the first caller brings a key, before that call is sealed. Where
    no enclave can be verified, every request is refused with an OpenAI error that says why.
    / shows the chain of trust, /status the same as JSON. Times are in seconds.
    """
    from confide.proxy.serve import local_token, read_place, serve

    if listen is not None and socket is not None:
        raise ConfigError("--listen", "--socket", "give one of the two")
    place = read_place(listen or LISTEN, socket)
    key = options.read_api_key(api_key_file, os.environ.get("CONFIDE_API_KEY"))
    limits = replace(
        Limits(), max_request_bytes=max_request_bytes, max_answer_bytes=max_answer_bytes, recover_s=recover
    )
    bounds = replace(
        Bounds(), max_in_flight=max_in_flight, answer_timeout_s=answer_timeout, stop_grace_s=stop_grace
    )
    relay = Relay(url, policy_file, api_key=key, allow_simulated=allow_simulated, limits=limits)
    tokens: tuple[str, ...] = ()
    if key is not None and socket is None and not no_token:
        token, token_file = local_token(token_file)
        tokens = (token, key)  # who holds the gateway's key could go there without us
    else:
        token_file = None
    serve(relay, place, tokens, token_file, bounds)
