"""`confide`: one command for users, auditors and operators."""

import sys
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points, version
from typing import Any, NoReturn

import click
from confide_protocol.errors import ConfideError, ConfigError

from confide.runtime import demand_cryptography

COMMANDS_GROUP = "confide.commands"
EXIT_REFUSED = 1
EXIT_BAD_INPUT = 2
# Commands of this package, in the order in which a newcomer meets them; loaded when asked for.
OWN = {
    "demo": "confide.cli.demo:demo",
    "chat": "confide.cli.chat:chat",
    "proxy": "confide.cli.proxy:proxy",
    "verify": "confide.cli.verify_url:verify",
    "audit": "confide.cli.audit:audit",
    "endorsements": "confide.cli.endorsements:endorsements",
    "policy": "confide.cli.policy:policy",
}
# Which extra brings a server's command; without it the command only says so.
EXTRAS = {"enclave": "enclave", "gateway": "gateway", "keys": "gateway", "model": "enclave", "proxy": "proxy"}


class Commands(click.Group):
    """Own commands and those that `gateway` and `enclave` register; every fault of ours is one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*OWN, *sorted(each.name for each in entry_points(group=COMMANDS_GROUP))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in OWN:
            demand_cryptography()
            module, _, name = OWN[cmd_name].partition(":")
            command: click.Command = getattr(import_module(module), name)
            return command
        for entry in entry_points(group=COMMANDS_GROUP, name=cmd_name):
            try:
                loaded: click.Command = entry.load()
            except ModuleNotFoundError as fault:
                return _absent(cmd_name, fault.name or "a package")
            return loaded
        return None

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401
        try:
            return super().invoke(ctx)
        except ConfideError as fault:
            where = " ".join(filter(None, ("confide", ctx.invoked_subcommand)))
            click.echo(f"{where}: {_one_line(fault)}", err=True)
            sys.exit(EXIT_BAD_INPUT if isinstance(fault, ConfigError) else EXIT_REFUSED)
        except ModuleNotFoundError as fault:
            # A server's command may look for its packages only once it runs.
            if ctx.invoked_subcommand not in EXTRAS:
                raise
            _tell_absent(ctx.invoked_subcommand, fault.name or "a package")
        except KeyboardInterrupt:
            sys.exit(130)


def _absent(name: str, module: str) -> click.Command:
    # Whatever is asked of it, --help included, the answer is how to get it.
    return click.Command(
        name,
        callback=partial(_tell_absent, name, module),
        params=[click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED, expose_value=False)],
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
        short_help=f"Needs: pip install 'confide[{EXTRAS.get(name, name)}]'",
    )


def _tell_absent(name: str, module: str) -> NoReturn:
    click.echo(
        f"confide {name}: {module} is missing; run: pip install 'confide[{EXTRAS.get(name, name)}]'", err=True
    )
    sys.exit(EXIT_BAD_INPUT)


def _one_line(fault: ConfideError) -> str:
    line = " ".join(str(fault).split())
    # A file's own names may stand in it: nothing that a terminal would obey.
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("confide"), prog_name="confide")
def main() -> None:
    """Prompts that only a verified enclave can read, and answers that it signs.

    \b
    Start here:   confide demo
    Developers:   from confide import OpenAI   (instead of: from openai import OpenAI); others: confide proxy …
    Auditors:     confide verify …, confide audit …, confide policy …, confide endorsements …
    Operators:    confide enclave …, confide gateway …, confide keys …, confide model …

    Exit status: 0 all holds, 1 something was refused or failed, 2 an input or setting is wrong.
    """
