"""What an operator may set of a server's command, arguments and variables: closed lists, and why no more.

What is not on a list may log what is asked, open a port, send rows elsewhere, load other code or other weights.
Names are taken whole, since some servers take any beginning of one. Does not check: what a program does that is not
the server, nor values beyond those named here; the manifest's digest covers all of it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

SPANS_MACHINES: Final = (
    "would let the engine span machines: refused until the evidence of every machine stands in one statement and "
    "what passes between them is sealed; use tensor and pipeline parallel over this machine's GPUs, and more "
    "enclaves behind the gateway for more machines"
)
GUESSES: Final = (
    "would guess tokens ahead, and the pace of a stream would tell how well; a request cannot turn it off there"
)
LOGS: Final = "would write what is asked or answered where others read it"
OURS: Final = "is set by the enclave"
SHARES: Final = "would let one tenant's prompt be found by another's"
OTHER_WEIGHTS: Final = "would load other weights than the manifest names"
OTHER_CODE: Final = "would load code that the manifest does not show"
# Of a model's own configuration: how far its positions reach. Not what it is, nor which code reads it.
MODEL_MEMBERS: Final = frozenset(
    {
        "max_position_embeddings",
        "original_max_position_embeddings",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "sliding_window",
        "use_sliding_window",
    }
)
INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
_NUMBER: Final = re.compile(r"-?[0-9]+")
_MODULE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


@dataclass(frozen=True)
class Options:
    """Arguments without a value, with one, with several numbers; values where not every one may stand (and why no
    other); of those that take a JSON object which members may be set; and what is refused with a reason of its own.
    """

    flags: frozenset[str]
    values: frozenset[str]
    lists: frozenset[str] = frozenset()
    choices: Mapping[str, tuple[frozenset[str], str]] = field(default_factory=dict)
    members: Mapping[str, frozenset[str]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    variables: frozenset[str] = frozenset()
    refused_variables: Mapping[str, str] = field(default_factory=dict)
    # What the enclave sets itself.
    environment: Mapping[str, str] = field(default_factory=dict)

    def check_arguments(self, arguments: Sequence[str]) -> None:
        """Raises: ValueError naming the first argument that is refused, and why.

        A word that no argument takes is refused: vLLM would take it as the model, before the one that we name.
        """
        words = list(arguments)
        while words:
            word = words.pop(0)
            if not word.startswith("-") or _NUMBER.fullmatch(word):
                raise ValueError(f"{word} is no argument's value; an argument begins with its name")
            spelled, joined, value = word.partition("=")
            name, _, member = spelled.partition(".")
            name = name.replace("_", "-")  # as the servers spell it
            if name not in self.flags | self.values | self.lists:
                raise ValueError(
                    f"{name} {self.refused.get(name, 'is not on the list of arguments that may be set')}"
                )
            if name in self.flags:
                if joined or member:
                    raise ValueError(f"{name} takes no value")
                continue
            values = [value] if joined else _take_values(words, many=name in self.lists)
            if not all(values):
                raise ValueError(f"{name} needs a value")
            self._check_values(name, member, values)

    def _check_values(self, name: str, member: str, values: Sequence[str]) -> None:
        """Raises: ValueError."""
        allowed, reason = self.choices.get(name, (frozenset(values), ""))
        if values[0] not in allowed:
            raise ValueError(f"{name} {values[0]} {reason}")
        if name in self.lists and not all(map(_NUMBER.fullmatch, values)):
            raise ValueError(f"{name} takes whole numbers")
        if name in self.members:
            for each in [member.partition(".")[0].removesuffix("+")] if member else _members(name, values[0]):
                if each not in self.members[name]:
                    raise ValueError(f"{name}: {each} is not on the list of its members that may be set")
        elif member:
            raise ValueError(f"{name} has no members")

    def check_environment(self, environment: Mapping[str, str]) -> None:
        """Raises: ValueError naming the first variable that is refused, and why."""
        for name in environment:
            if not _NAME.fullmatch(name):
                raise ValueError("a variable's name has capitals, digits and '_'")
            if name.endswith("_API_KEY"):
                raise ValueError(f"{name} {OURS}; in a file it would be no secret")
            if name in self.environment:
                raise ValueError(f"{name} {OURS}")
            if name not in self.variables:
                reason = self.refused_variables.get(name, "is not on the list of variables that may be set")
                raise ValueError(f"{name} {reason}")

    def make_environment(self, inherited: Mapping[str, str], chosen: Mapping[str, str]) -> dict[str, str]:
        """Return all that the server gets, but for its key."""
        kept = {name: inherited[name] for name in INHERITED if name in inherited}
        return kept | dict(chosen) | dict(self.environment)


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def because(reason: str, text: str) -> dict[str, str]:
    """Return each name with the reason."""
    return dict.fromkeys(text.split(), reason)


# Of torch and NCCL, whoever uses them. None loads code, names a file, opens a port or reaches another machine.
TORCH_VARIABLES: Final = words("""
    CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER OMP_NUM_THREADS MKL_NUM_THREADS PYTORCH_CUDA_ALLOC_CONF
    NCCL_ALGO NCCL_PROTO NCCL_P2P_DISABLE NCCL_P2P_LEVEL NCCL_SHM_DISABLE NCCL_IB_DISABLE NCCL_NVLS_ENABLE
    NCCL_CUMEM_ENABLE NCCL_BUFFSIZE NCCL_NTHREADS NCCL_MIN_NCHANNELS NCCL_MAX_NCHANNELS
""")
# No request of such a server leaves the machine, and what it listens on beside its socket is loopback.
TORCH_ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    "TP_SOCKET_IFNAME": "lo",
}


def check_command(command: Sequence[str]) -> None:
    """Raises: ValueError unless it is a program or `python -m module`, and at most `serve` after it."""
    words = command[1:-1] if command[1:] and command[-1] == "serve" else command[1:]
    is_module = len(words) == 2 and words[0] == "-m" and _MODULE.fullmatch(words[1])
    if words and not is_module:
        refused = words[2] if words[0] == "-m" and len(words) > 2 else words[0]
        raise ValueError(
            f'{refused} does not belong here: it is a program or "python", "-m", "module", then at most "serve"; '
            "more belongs into `arguments`"
        )


def _take_values(words: list[str], *, many: bool) -> list[str]:
    """Take an argument's values from the front of the words after it; at least one, which may be empty."""
    if not words or (words[0].startswith("-") and not _NUMBER.fullmatch(words[0])):
        return [""]
    values = [words.pop(0)]
    while many and words and _NUMBER.fullmatch(words[0]):
        values.append(words.pop(0))
    return values


def _members(name: str, text: str) -> list[str]:
    """Raises: ValueError."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        raise ValueError(f"{name} takes a JSON object")  # noqa: TRY004 - pydantic shows ValueErrors
    return list(tree)
