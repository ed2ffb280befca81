"""`confide model distill`: train a draft that guesses what a model says."""

import tempfile
from pathlib import Path

import click
from confide_protocol.errors import ConfigError

PATH = click.Path(path_type=Path)
MAX_PROMPTS_BYTES = 16 << 20
HELD_OUT = 10  # one prompt in so many


@click.command("distill")
@click.argument("weights", type=PATH)
@click.argument("draft", type=PATH)
@click.option("--prompts", type=PATH, required=True, help="A text file with a prompt in each line.")
@click.option("--layers", help="Layers of the model that the draft starts as.  [default: the first and the last]")
@click.option("--answer-tokens", type=click.IntRange(2, 4096), default=64, show_default=True)
@click.option("--steps", type=click.IntRange(1, 100_000), default=200, show_default=True, help="Of training.")
@click.option("--seed", type=int, default=0, show_default=True)
def distill_command(
    weights: Path, draft: Path, prompts: Path, layers: str | None, answer_tokens: int, steps: int, seed: int
) -> None:
    """Train a draft for the model WEIGHTS, a GGUF file or a published directory, and write it to DRAFT.

    The model answers the prompts greedily. All but every tenth answer train some of its layers, by themselves, to
    say the same; on the rest both are told how often the draft finds the model's token likeliest, before and after.

    \b
    confide model distill model.gguf draft --prompts prompts.txt
    Then, in enclave.toml:  [engine] speculate = "draft", draft = "draft"

    A draft never changes an answer. It pays where a step with several tokens costs little more than one with one;
    measure it with your own prompts. Prompts like those of your users help; the draft keeps traces of them.
    """
    import torch

    from confide_enclave.engine.checkpoint import open_source
    from confide_enclave.engine.config import read_config
    from confide_enclave.engine.convert import convert
    from confide_enclave.engine.distill import acceptance, answer_prompts, train
    from confide_enclave.engine.draft import skip_layers
    from confide_enclave.engine.package import Model, open_package, write_package
    from confide_enclave.engine.tokens import Tokens
    from confide_enclave.engine.weights import load_weights

    texts = _read_prompts(prompts)
    if draft.exists():
        raise ConfigError(str(draft), "draft", "is there already; name a new directory")
    model, digest = open_source(weights)
    kept = _read_layers(layers, read_config(model).layers)
    whole = load_weights(Model(model, dict(convert(model, "w8a8")), "w8a8", digest, digest), torch.float32)
    before = skip_layers(whole, kept)
    click.echo(f"{len(texts)} prompts are answered with at most {answer_tokens} tokens each ...", err=True)
    answers = answer_prompts(whole, Tokens(model), texts, answer_tokens)
    held, seen = answers[::HELD_OUT], [each for i, each in enumerate(answers) if i % HELD_OUT]

    def report(step: int, loss: float) -> None:
        if step % 10 == 0 or step == steps:
            click.echo(f"step {step} of {steps}: loss {loss:.3f}", err=True)

    student = train(model, kept, seen, steps=steps, seed=seed, report=report)
    draft.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=draft.parent, prefix=".distill.") as name:
        room = Path(name, "package")
        room.mkdir()
        write_package(student, digest, "w8a8", room)
        room.replace(draft)
    after = load_weights(open_package(draft), torch.float32)
    click.echo(f"held-out tokens guessed right: before {acceptance(before, held):.1%}, ", nl=False)
    click.echo(f"after {acceptance(after, held):.1%}; {len(held)} prompts")


def _read_prompts(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PROMPTS_BYTES + 1)
        texts = [line.strip() for line in data.decode().splitlines()]
    except (OSError, UnicodeDecodeError):
        raise ConfigError(str(path), "prompts", "cannot be read as UTF-8 text; check --prompts") from None
    texts = [text for text in texts if text]
    if len(data) > MAX_PROMPTS_BYTES or len(texts) < 2:
        raise ConfigError(str(path), "prompts", f"must be 2 lines or more, and {MAX_PROMPTS_BYTES} bytes at most")
    return texts


def _read_layers(text: str | None, count: int) -> tuple[int, ...]:
    if text is None:
        return tuple(sorted({0, count - 1}))
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError("--layers", "layers", "must be numbers with commas between, from 0") from None
