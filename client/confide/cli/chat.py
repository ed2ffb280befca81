"""`confide chat`: talk to a model inside a verified enclave."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from confide_attestation.errors import AppraisalRejected
from confide_attestation.transcript_text import render_transcript, verdict_line

from confide.audit import audit_file
from confide.cli import options
from confide.cli.conversation import Message, stream_chat
from confide.cli.render import render_receipt
from confide.relay import Relay


@click.command()
@click.argument("prompt", required=False)
@click.option("--url", required=True, help="The gateway.")
@options.policy
@options.allow_simulated
@options.api_key_file
@click.option("--model", help="Which of the enclave's models.  [default: the first of its manifest]")
@click.option("--system", help="Instructions that stand before the conversation.")
@click.option("--max-tokens", type=click.IntRange(1), default=512, show_default=True, help="Longest answer.")
@click.option("--temperature", type=click.FloatRange(0, 2), default=0.0, show_default=True, help="0 is greedy.")
@click.option(
    "--save",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the last exchange as an audit file, its words included; `confide audit` judges it.",
)
def chat(
    prompt: str | None,
    url: str,
    policy_file: Path,
    allow_simulated: bool,
    api_key_file: Path | None,
    model: str | None,
    system: str | None,
    max_tokens: int,
    temperature: float,
    save: Path | None,
) -> None:
    """Ask PROMPT and print the answer; without PROMPT, hold a conversation (an empty line or Ctrl-D ends it).

    The enclave is verified before a byte is sent; answers go to standard output, what was verified to standard
    error.
    """
    key = options.read_api_key(api_key_file, os.environ.get("CONFIDE_API_KEY"))
    relay = Relay(url, policy_file, api_key=key, allow_simulated=allow_simulated)
    verify_loudly(relay)
    said: list[Message] = [{"role": "system", "content": system}] if system else []
    for question in [prompt] if prompt else _questions():
        said.append({"role": "user", "content": question})
        parts = []
        for text in stream_chat(relay, said, max_tokens=max_tokens, temperature=temperature, model=model):
            parts.append(text)
            click.echo(text, nl=False)
        click.echo()
        said.append({"role": "assistant", "content": "".join(parts)})
        if relay.last_receipt is not None:
            click.echo(render_receipt(relay.last_receipt.claims), err=True)
    if save is not None:
        save_audit(relay, policy_file, save)


def verify_loudly(relay: Relay) -> None:
    """Verify; on refusal print every check, on success the verdict. Raises: ConfideError."""
    try:
        result = relay.verify()
    except AppraisalRejected as fault:
        click.echo(render_transcript(fault.result), err=True)
        if hint := options.clock_hint(fault.result):
            click.echo(f"confide chat: {hint}", err=True)
        raise
    click.echo(verdict_line(result), err=True)


def save_audit(relay: Relay, policy_file: Path, to: Path) -> None:
    """Write the last exchange, words included. Raises: ConfigError."""
    if relay.last_receipt is not None:
        kept = audit_file(relay.last_receipt, policy_file.read_bytes(), disclose=True)
        options.write_file(to, kept.encoded, "--save")


def _questions() -> Iterator[str]:
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if not line:
            return
        yield line
