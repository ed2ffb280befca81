"""What the enclave has to know of one kind of server: data, and the wire that it speaks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from confide_enclave.remote.chunk import Wire
from confide_enclave.remote.servers.options import Options


@dataclass(frozen=True)
class Start:
    """What a server is started with. `address`: a socket's path, or a port of loopback; `key_file` may be empty."""

    weights: str
    name: str
    address: str
    context_tokens: int
    max_requests: int
    key_file: str


@dataclass(frozen=True)
class Server:
    """One kind of server.

    tested: versions that this release's tests ran against.
    weights: what it reads, a published directory or a GGUF file.
    own: the arguments that the enclave adds.
    socket: the name of its unix socket, empty for one that has none and listens on loopback.
    key_variable: by which it gets its key, empty for one that reads it from a file.
    spare_tokens: of its context, how many it never fills; it gets as many more.
    repeats_prompt: its answer begins with the prompt's ids.
    logprobs: it says by id which tokens they are of.
    grammars: whether every build of it follows llguidance's, or it has to be asked.
    """

    name: str
    tested: frozenset[str]
    weights: Literal["directory", "file"]
    wire: Wire
    options: Options
    own: Callable[[Start], Sequence[str]]
    socket: str
    key_variable: str
    spare_tokens: int
    repeats_prompt: bool
    logprobs: bool
    grammars: Literal["always", "asked"]
