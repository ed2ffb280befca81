"""Does a signed answer come out again? The enclave's own package runs it, found by entry point; here it is judged.

Compared is everything that an answer says: texts, calls, finish reasons, counts, log-probabilities; not its ids and
times, and not how a stream is cut into events, which says nothing. Where even the cuts are the same, the signed
transcript itself comes out again, with the signed ids in place of the new ones.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, Protocol

from confide_attestation.result import Check, Outcome
from confide_protocol.errors import ConfigError, Malformed
from confide_protocol.keyset import Manifest
from confide_protocol.receipt import ReceiptClaims

from confide.answer import DONE, is_events, is_json
from confide.audit import transcribe
from confide.session import Disclosure

REPLAY_GROUP: Final = "confide.replay"
# Drawn, counted or read off a clock: other ones each time.
_OWN: Final = frozenset(
    {
        "id",
        "created",
        "created_at",
        "completed_at",
        "response_id",
        "item_id",
        "call_id",
        "sequence_number",
        "obfuscation",
    }
)
# What a stream gives in parts; all else of an event is said whole, maybe again and again.
_IN_PARTS: Final = frozenset({"choices", "delta", "logprobs"})
_PLACE: Final = ("type", "output_index", "content_index", "summary_index")

Answer = tuple[int, str, tuple[bytes, ...]]


class Replayer(Protocol):
    """What the entry point gives: checks of what runs, and the answer (status, content type, events or body)."""

    def __call__(
        self,
        manifest: Manifest,
        claims: ReceiptClaims,
        method: str,
        path: str,
        body: bytes,
        weights: Path,
        *,
        threads: int = 0,
    ) -> tuple[tuple[Check, ...], Answer | None]: ...


def find_replayer() -> Replayer:
    """Load the enclave's half. Raises: ConfigError, naming the extra that brings it."""
    missing = "the enclave package"
    for entry in entry_points(group=REPLAY_GROUP):
        try:
            replayer: Replayer = entry.load()
        except ModuleNotFoundError as fault:
            missing = fault.name or missing
        else:
            return replayer
    raise ConfigError("--rerun", missing, "is missing; run: pip install 'confide[enclave]'")


def check_rerun(
    replayer: Replayer,
    manifest: Manifest,
    claims: ReceiptClaims,
    said: Disclosure,
    *,
    weights: Path,
    threads: int = 0,
) -> list[Check]:
    """Run the request of a receipt again and compare; `said` are its words, which the caller checked to be so.

    Raises: ConfigError when the weights cannot be used.
    """
    request = said.method, said.path, said.request_body
    checks, answer = replayer(manifest, claims, *request, weights, threads=threads)
    if answer is not None:
        return [*checks, *compare(claims, said, answer)]
    if any(check.id == "rerun_answer" for check in checks):
        return list(checks)
    return [*checks, Check("rerun_answer", Outcome.SKIP, "not re-run")]


def compare(claims: ReceiptClaims, said: Disclosure, answer: Answer) -> list[Check]:
    """Judge what came out against what was signed."""
    status, content_type, response = answer
    if (status, content_type) != (said.status, said.content_type):
        return [_fail(f"status {said.status}, {said.content_type} signed; {status}, {content_type} came out")]
    try:
        _, signed = transcribe(said)
        _, found = transcribe(replace(said, response=response))
        if fault := _first_difference(signed.messages, found.messages):
            return [_fail(fault)]
        if contents(content_type, said.response) != contents(content_type, response):
            return [_fail("the texts come out again, but something else that the answer says does not")]
        grafted = replace(said, response=_graft(content_type, said.response, response))
        digests, _ = transcribe(grafted)
    except (Malformed, RecursionError) as fault:
        return [_fail(str(fault))]
    texts = f"{claims.message_count} message(s), {sum(map(len, signed.messages))} bytes of text"
    checks = [Check("rerun_answer", Outcome.PASS, f"the same answer, bit for bit: {texts}, and all said beside it")]
    if (digests.root, digests.commitment) == (claims.transcript_root, claims.response_commitment):
        why = "the signed root and commitment come out too, with the signed ids and times"
        return [*checks, Check("rerun_transcript", Outcome.PASS, why)]
    why = "the stream was cut into other events; that says nothing of the answer"
    return [*checks, Check("rerun_transcript", Outcome.SKIP, why)]


def contents(content_type: str, response: Sequence[bytes]) -> Any:  # noqa: ANN401
    """Return all that an answer says, however it was cut, without ids and times. Raises: Malformed."""
    if is_json(content_type):
        return _without_own(_parse(b"".join(response)))
    if not is_events(content_type):
        return b"".join(response)
    said: dict[str, dict[str, Any]] = {}
    for data in response:
        tree = DONE.decode() if data == DONE else _without_own(_payload(data))
        event = tree if isinstance(tree, dict) else {"": tree}
        of_place = said.setdefault(json.dumps([event.get(name) for name in _PLACE]), {})
        for name, value in event.items():
            if name in _IN_PARTS:
                of_place[name] = _join(of_place.get(name), value)
            elif value not in of_place.setdefault(name, []):
                of_place[name].append(value)
    return said


def _join(whole: Any, part: Any) -> Any:  # noqa: ANN401
    """Add a part to what was said before: texts grow, and lists, those of numbered things by their number."""
    match whole, part:
        case dict(), dict():
            return {name: _join(whole.get(name), part.get(name)) for name in {**whole, **part}}
        case ((None | list()), list()) if part and all(map(_is_numbered, [*(whole or ()), *part])):
            numbered = {each["index"]: each for each in whole or ()}
            for each in part:
                index = each["index"]
                numbered[index] = {**_join(numbered.get(index, {}), each), "index": index}
            return [numbered[index] for index in sorted(numbered)]
        case (list(), list()) | (str(), str()):
            return whole + part
    return whole if part is None else part


def _is_numbered(item: Any) -> bool:  # noqa: ANN401
    return isinstance(item, dict) and type(item.get("index")) is int


def _without_own(tree: Any) -> Any:  # noqa: ANN401
    if isinstance(tree, dict):
        return {name: _without_own(value) for name, value in tree.items() if name not in _OWN}
    return [_without_own(each) for each in tree] if isinstance(tree, list) else tree


def _graft(content_type: str, signed: Sequence[bytes], found: Sequence[bytes]) -> tuple[bytes, ...]:
    """Put the signed ids and times into what came out, where it is cut alike; elsewhere leave it."""
    if len(signed) != len(found):
        return tuple(found)
    if is_json(content_type):
        return tuple(_dump(_with_own(_parse(old), _parse(new))) for old, new in zip(signed, found, strict=True))
    if not is_events(content_type):
        return tuple(found)
    return tuple(
        new if DONE in (old, new) else _reframe(new, _with_own(_payload(old), _payload(new)))
        for old, new in zip(signed, found, strict=True)
    )


def _with_own(signed: Any, found: Any) -> Any:  # noqa: ANN401
    match signed, found:
        case dict(), dict():
            return {
                name: signed[name] if name in _OWN and name in signed else _with_own(signed.get(name), value)
                for name, value in found.items()
            }
        case list(), list() if len(signed) == len(found):
            return [_with_own(old, new) for old, new in zip(signed, found, strict=True)]
    return found


def _payload(data: bytes) -> Any:  # noqa: ANN401
    lines = [line.removeprefix(b"data:") for line in data.split(b"\n") if line.startswith(b"data:")]
    return _parse(b"\n".join(lines)) if lines else data.decode(errors="replace")


def _reframe(data: bytes, tree: Any) -> bytes:  # noqa: ANN401
    """Write an event again with other data; the enclave puts each on one line, after whatever names the event."""
    before, mark, _ = data.partition(b"data: ")
    return before + mark + _dump(tree) + b"\n\n" if mark else data


def _dump(tree: Any) -> bytes:  # noqa: ANN401
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode()


def _parse(data: bytes) -> Any:  # noqa: ANN401
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed("the answer is not JSON") from None


def _first_difference(signed: Sequence[bytes], found: Sequence[bytes]) -> str:
    if len(signed) != len(found):
        return f"{len(signed)} message(s) signed, {len(found)} came out"
    for index, (old, new) in enumerate(zip(signed, found, strict=True)):
        if old != new:
            at = next(
                (n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new))
            )
            return f"message {index} comes out otherwise from its byte {at} on"
    return ""


def _fail(detail: str) -> Check:
    return Check("rerun_answer", Outcome.FAIL, detail)
