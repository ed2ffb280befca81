"""What is left of prompts and answers in an enclave's memory when its requests have ended: canaries, from outside.

An enclave with the default models (no encoder where none is unpacked) answers sealed requests of each kind. A
canary is a run of 40 digits, drawn by chance for a prompt, drawn by the model under a pattern for an answer. The
model's tokenizer cuts digits one by one, so a canary's token ids are known too. Then all writable memory is read
through /proc/PID/mem, the process stopped, and searched for pieces of canaries: as UTF-8, UTF-16, and ids in arrays
of 32 or 64 bits. Not so Python's lists of integers: they hold references to objects that all lists share.

`memory.open` is the control: copies of a canary whose request is under way. `memory.left` counts the canaries of
which anything was found later, `memory.left_...` the copies, by what they are of, their form and their place.
`memory.pool_bytes` are those of the cache of keys and values that are not zero. Evidence "as it is" is of the plain
allocator; "overwriting" is with OVERWRITING, which the image and the unit set: what is left then is in use still.
`memory.decode` and `memory.request_cpu` tell what that costs.
"""

import json
import os
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import httpx2
import numpy as np
from confide.playground import Playground, stopping
from confide.transport import Transport
from confide_enclave.engine.card import EngineLimits, default_weights, open_weights
from confide_enclave.engine.encoder_card import default_encoder
from confide_enclave.engine.tokens import Tokens
from confide_protocol.errors import ConfigError

from tests.bench import Row, absent, ours, versus
from tests.fakes.stack import Stack

# Python's objects come from glibc, which overwrites whatever is freed; its caches per thread would not.
OVERWRITING: Final = {
    "PYTHONMALLOC": "malloc",
    "GLIBC_TUNABLES": "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0",
}
DIGITS: Final = 40
IDLE_S: Final = 1.0
SETTINGS: Final = f"[engine]\nprefix_idle_s = {IDLE_S}\n"
ENCODER: Final = "all-minilm-l6-v2"
BLOCK: Final = 1 << 16
# The type of an element, and how many in a row are no accident.
FORMS: Final = {"utf8": ("<u1", 16), "utf16": ("<u2", 16), "ids32": ("<u4", 8), "ids64": ("<u8", 8)}
PIECE: Final = 8


def rows(quick: bool) -> list[Row]:
    if sys.platform != "linux" or os.geteuid() != 0:
        return [absent("memory.left", "of canaries", "nobody", "only Linux's root may read the process's memory")]
    found: list[Row] = []
    speeds: list[tuple[float, float]] = []
    with stopping(), ExitStack() as running:
        grounds = {
            "as it is": running.enter_context(enclave({})),
            "overwriting": running.enter_context(enclave(OVERWRITING)),
        }
        for name, asker in grounds.items():
            found += [replace(row, evidence=name) for row in asker.measure(2 if quick else 10)]
        taken = [[asker.cost(quick) for asker in grounds.values()] for _ in range(1 if quick else 3)]
    for turns in zip(*taken, strict=True):
        rates, costs = zip(*turns, strict=True)
        speeds.append((max(rates), min(costs)))
    (plain_rate, plain_ms), (rate, ms) = speeds
    return [
        *found,
        versus("memory.decode", rate, "tok/s", "as it is", plain_rate),
        versus("memory.request_cpu", ms, "ms", "as it is", plain_ms),
    ]


@dataclass(frozen=True)
class Canary:
    of: str
    digits: str = field(default_factory=lambda: "".join(secrets.choice("0123456789") for _ in range(DIGITS)))


@dataclass(frozen=True)
class Found:
    """A piece of a canary."""

    canary: Canary
    form: str
    place: str


@dataclass
class Ground(Playground):
    """A playground whose enclave has more in its environment."""

    environment: Mapping[str, str] = field(default_factory=dict)

    def spawn(self, name: str, *argv: str) -> Any:
        added = [f"{key}={value}" for key, value in self.environment.items()] if name == "enclave" else []
        return super().spawn(name, *(["env", *added] if added else []), *argv)


@contextmanager
def enclave(environment: Mapping[str, str]) -> Iterator["Asker"]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ground = Ground(Path(folder), gpus=0, environment=environment)
        stack.callback(ground.stop_all)
        embeddings = f'[embeddings]\nname = "{ENCODER}"\n' if has_encoder() else ""
        running = Stack(ground, ground.start(enclave_settings=SETTINGS + embeddings))
        http = httpx2.Client(transport=Transport(running.url, relay=running.relay()), timeout=120)
        yield Asker(stack.enter_context(http), running.url, running.model, ground.children["enclave"].process.pid)


class Asker:
    """Sends marked requests of every kind to one enclave, and remembers the canaries."""

    def __init__(self, http: httpx2.Client, url: str, model: str, pid: int) -> None:
        self._http, self._url, self._model, self._pid = http, url, model, pid
        self._canaries: list[Canary] = []
        self._zero = digit_id()

    def measure(self, rounds: int) -> list[Row]:
        opened = Canary("prompt")
        with self._http.stream("POST", self._url + "/v1/chat/completions", json=self._endless(opened)) as answer:
            next(answer.iter_lines())
            control = search(snapshot(self._pid), [opened], self._zero)
        self._canaries.append(opened)
        for _ in range(rounds):
            self._chat(stream=False)
            self._chat(stream=True)
            self._respond()
            self._complete()
            self._refused()
            if has_encoder():
                self._embed()
        time.sleep(IDLE_S + 1)
        memory = snapshot(self._pid)
        left = search(memory, self._canaries, self._zero)
        pool = sum(len(part.data) - part.data.count(0) for part in memory if part.place == "pool")
        copies = Counter(f"memory.left_{each.canary.of}_{each.form}_{each.place}" for each in left)
        return [
            ours("memory.open", len(control), "copies"),
            ours("memory.left", len({each.canary for each in left}) / len(self._canaries), "of canaries"),
            *(ours(name, count / rounds, "copies a round") for name, count in sorted(copies.items())),
            ours("memory.pool_bytes", pool, "bytes"),
        ]

    def cost(self, quick: bool) -> tuple[float, float]:
        """Return tokens a second of one answer, and the enclave's CPU time in ms for a request without a model."""
        count, calls = (32, 20) if quick else (128, 200)
        began_s = time.perf_counter()
        body = {**self._about("the sea"), "max_tokens": count, "temperature": 0, "speculate": False}
        tokens = self._post("/v1/chat/completions", body).json()["usage"]["completion_tokens"]
        took_s, before_s = time.perf_counter() - began_s, self._cpu_s()
        for _ in range(calls):
            self._http.get(self._url + "/v1/models").raise_for_status()
        return tokens / took_s, (self._cpu_s() - before_s) * 1000 / calls

    def _cpu_s(self) -> float:
        parts = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    def _about(self, what: str) -> dict[str, Any]:
        return {"model": self._model, "messages": [{"role": "user", "content": f"A story about {what}, please."}]}

    def _endless(self, canary: Canary) -> dict[str, Any]:
        return {**self._about(canary.digits), **_pattern(600), "stream": True, "max_tokens": 800}

    def _chat(self, *, stream: bool) -> None:
        body = {**self._about(self._new().digits), **_pattern(DIGITS), "stream": stream}
        answer = self._post("/v1/chat/completions", body)
        if stream:
            chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
            self._said("".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks))
        else:
            self._said(answer.json()["choices"][0]["message"]["content"])

    def _respond(self) -> None:
        rule = _pattern(DIGITS)
        body = {"model": self._model, "input": self._new().digits, "text": {"format": rule.pop("response_format")}}
        answer = self._post("/v1/responses", {**body, **rule})
        self._said(answer.json()["output"][0]["content"][0]["text"])

    def _complete(self) -> None:
        body = {"model": self._model, "prompt": f"A story about {self._new().digits}:", "max_tokens": 8}
        self._post("/v1/completions", body)

    def _embed(self) -> None:
        self._post("/v1/embeddings", {"model": ENCODER, "input": f"A story about {self._new().digits}."})

    def _refused(self) -> None:
        answer = self._http.post(
            self._url + "/v1/chat/completions", json={**self._about("the sea"), "seed": self._new().digits}
        )
        assert answer.status_code == 400

    def _post(self, path: str, body: dict[str, Any]) -> httpx2.Response:
        return self._http.post(self._url + path, json=body).raise_for_status()

    def _new(self) -> Canary:
        self._canaries.append(Canary("prompt"))
        return self._canaries[-1]

    def _said(self, text: str) -> None:
        assert len(text) == DIGITS
        assert text.isdigit()
        self._canaries.append(Canary("answer", text))


def has_encoder() -> bool:
    try:
        return default_encoder().is_dir()
    except ConfigError:
        return False


def _pattern(digits: int) -> dict[str, Any]:
    return {"response_format": {"type": "regex", "pattern": f"[0-9]{{{digits}}}"}, "temperature": 2}


@dataclass(frozen=True)
class Part:
    """A stretch of memory without blocks of zeros."""

    place: str
    data: bytes


def snapshot(pid: int) -> list[Part]:
    """Return what a process has written into memory, as of one moment."""
    parts: list[Part] = []
    os.kill(pid, signal.SIGSTOP)
    try:
        with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
            for line in maps:
                span, mode, _, _, _, *name = line.split(maxsplit=5)
                if mode.startswith("rw"):
                    start, end = (int(part, 16) for part in span.split("-"))
                    memory.seek(start)
                    place = _place(name[0].strip() if name else "")
                    parts += [Part(place, data) for data in _without_zeros(memory, end - start)]
    finally:
        os.kill(pid, signal.SIGCONT)
    return parts


def _without_zeros(memory: Any, count: int) -> Iterator[bytes]:
    held: list[bytes] = []
    while count > 0 and (block := memory.read(min(BLOCK, count))):
        count -= len(block)
        if block.count(0) < len(block):
            held.append(block)
        elif held:
            yield b"".join(held)
            held = []
    if held:
        yield b"".join(held)


def _place(name: str) -> str:
    """Name the kind of a mapping. The cache's memory is anonymous and shared, which Linux names so."""
    if name.startswith("/dev/zero"):
        return "pool"
    if name in ("[heap]", "[stack]"):
        return name.strip("[]")
    return "file" if name else "anonymous"


def search(memory: Iterable[Part], canaries: Iterable[Canary], zero: int) -> list[Found]:
    """Return each piece of a canary, of PIECE digits at least. `zero`: the token id of 0."""
    pieces = {each.digits[i : i + PIECE]: each for each in canaries for i in range(DIGITS - PIECE + 1)}
    found: list[Found] = []
    for part in memory:
        for form, (kind, least) in FORMS.items():
            low = zero if form.startswith("ids") else ord("0")
            values = np.frombuffer(part.data, kind)
            for start, end in _runs(values, low, least):
                digits = "".join(str(value - low) for value in values[start:end].tolist())
                ends = range(PIECE, len(digits) + 1)
                hits = {pieces[digits[i - PIECE : i]] for i in ends if digits[i - PIECE : i] in pieces}
                found += [Found(canary, form, part.place) for canary in hits]
    return found


def _runs(values: Any, low: int, least: int) -> list[list[int]]:
    """Return where `least` values or more in a row are low to low + 9: start and end of each."""
    inside = values - values.dtype.type(low) < 10  # unsigned: what is lower becomes large
    edges = np.flatnonzero(np.diff(inside, prepend=False, append=False)).reshape(-1, 2)
    return [[start, end] for start, end in edges.tolist() if end - start >= least]


def digit_id() -> int:
    """Return the default model's id of 0; those of the other digits follow it."""
    tokens = Tokens(open_weights(default_weights(), EngineLimits()).metadata)
    ids = tokens.encode("".join(map(str, range(10))))
    assert ids == list(range(ids[0], ids[0] + 10))
    return ids[0]
