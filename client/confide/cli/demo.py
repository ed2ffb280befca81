"""`confide demo`: the whole way, on one machine, with simulated hardware."""

import json
import tempfile
import time
from pathlib import Path

import click
from confide_attestation.transcript_text import render_transcript

from confide.cli.chat import save_audit
from confide.cli.conversation import stream_chat
from confide.cli.render import render_receipt
from confide.playground import Platform, Playground, playground, stopping
from confide.policy_memory import PolicyMemory
from confide.relay import Relay

PROMPT = "What is the capital of France? Answer in one sentence."
MAX_TOKENS = 256
WATCH_S = 0.5

BANNER = """\
+--------------------------------------------------------------------------------+
|  SIMULATED HARDWARE                                                            |
|  Formats, checks and cryptography are the real ones. The silicon is played by  |
|  a process of this run: nothing below proves anything about a real machine.    |
+--------------------------------------------------------------------------------+"""

WHAT_IT_SHOWS = """\
What each part shows
  the checks     that the keys below belong to the measured image and to nobody between you and it
                 (here: to the simulated one; with real silicon, to the vendor's root)
  the receipt    that exactly this answer was given to exactly this question by the holder of those keys
  the gateway    relayed sealed bytes: it holds no key that opens them
What it does not show: when it happened, or that the answer is right."""


@click.command()
@click.option("--prompt", default=PROMPT, show_default=True, help="What to ask.")
@click.option("--serve", is_flag=True, help="Keep the playground up for your own client; Ctrl-C ends it.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="The gateway's port.  [default: any free one]"
)
@click.option(
    "--platform",
    type=click.Choice(["sev-snp", "tdx"]),
    default="sev-snp",
    show_default=True,
    help="The simulated CPU's TEE.",
)
@click.option(
    "--gpus",
    type=click.IntRange(0, 8),
    default=1,
    show_default=True,
    metavar="0..8",
    help="Simulated Hopper GPUs.",
)
@click.option("--embeddings", is_flag=True, help="Serve /v1/embeddings too.")
@click.option(
    "--cors-origin", "origins", multiple=True, metavar="ORIGIN", help="Let web pages of this exact origin call."
)
@click.option(
    "--save", type=click.Path(path_type=Path, dir_okay=False), help="Write the exchange as an audit file."
)
def demo(
    prompt: str,
    serve: bool,
    port: int,
    platform: Platform,
    gpus: int,
    embeddings: bool,
    origins: tuple[str, ...],
    save: Path | None,
) -> None:
    """Ask one sealed question, end to end, on this machine.

    Starts the simulated devices of a confidential machine (CPU and GPU), an enclave with a small language model and
    a gateway, each a process of its own on loopback; verifies the enclave, asks, prints the answer as it comes, and
    verifies its receipt. The model itself runs on this machine's CPU.
    """
    started_s = time.monotonic()
    click.echo(BANNER)
    with (
        stopping(),
        tempfile.TemporaryDirectory(prefix="confide-") as folder,
        playground(Path(folder), platform=platform, gpus=gpus) as ground,
    ):
        click.echo(f"\nStarting: simulated {_machine(platform, gpus)}, enclave, gateway …")
        ground.start(
            port=port,
            enclave_settings="\n[embeddings]\n" if embeddings else "",
            gateway_settings=f"cors_origins = {json.dumps(origins)}\n",
        )
        for name, child in ground.children.items():
            click.echo(f"  {name:<8} process {child.process.pid}")
        relay = Relay(
            ground.gateway_url,
            ground.policy_file,
            api_key=ground.api_key,
            allow_simulated=True,
            memory=PolicyMemory(None),
        )
        click.echo("\nVerifying the enclave, before a byte of the question leaves:\n")
        click.echo(render_transcript(relay.verify()))
        click.echo(f"\nSealed to it, through {ground.gateway_url}:\n\n  {prompt}\n")
        _ask(relay, prompt, started_s)
        if save is not None:
            save_audit(relay, ground.policy_file, save)
            click.echo(f"\nKept: {save}   judge it with: confide audit --allow-simulated {save}")
        if serve:
            _serve(ground)


def _machine(platform: Platform, gpus: int) -> str:
    cpu = {"sev-snp": "AMD SEV-SNP", "tdx": "Intel TDX"}[platform]
    return cpu + (f" with {gpus} NVIDIA Hopper GPU{'s' if gpus > 1 else ''}" if gpus else "")


def _ask(relay: Relay, prompt: str, started_s: float) -> None:
    asked_s = time.monotonic()
    first_s: float | None = None
    click.echo("  ", nl=False)
    for text in stream_chat(relay, [{"role": "user", "content": prompt}], max_tokens=MAX_TOKENS, temperature=0.0):
        if first_s is None:
            first_s = time.monotonic()
        click.echo(text.replace("\n", "\n  "), nl=False)
    click.echo("\n")
    if first_s is not None:
        click.echo(
            f"First words {first_s - asked_s:.2f} s after asking, {first_s - started_s:.1f} s after the command."
        )
    if relay.last_receipt is not None:
        click.echo("\nThe receipt, verified:\n")
        click.echo(render_receipt(relay.last_receipt.claims))
    click.echo("\n" + WHAT_IT_SHOWS)


def _serve(ground: Playground) -> None:
    key_file = ground.write("api.key", ground.api_key + "\n")
    click.echo(
        f"""
The playground stays up until Ctrl-C.
  base_url   {ground.gateway_url}/v1
  api_key    {ground.api_key}
  policy     {ground.policy_file}

  confide chat --url {ground.gateway_url} --policy {ground.policy_file} --allow-simulated --api-key-file {key_file}

  from confide import OpenAI
  client = OpenAI(base_url="{ground.gateway_url}/v1", api_key="{ground.api_key}",
                  policy="{ground.policy_file}", allow_simulated=True)"""
    )
    while True:
        ground.check()
        time.sleep(WATCH_S)
