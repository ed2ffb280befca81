"""What llama.cpp's `llama-server` says, as the fake server says it: its documents, and the events of an answer."""

from collections.abc import Mapping, Sequence
from typing import Any

END_ID = 2
BUILD = "b1-fake"


def props(context: int, version: str = BUILD) -> dict[str, Any]:
    return {
        "build_info": version,
        "total_slots": 1,
        "default_generation_settings": {"n_ctx": context, "params": {}},
    }


def events(
    ids: Sequence[int], asked: Mapping[str, Any], spell: Mapping[int, bytes] | None = None, model: str = "toy"
) -> list[dict[str, Any]]:
    """Return an answer's events: a token each, but for tokens that leave a character incomplete, and the counts.

    `spell` are the tokens' bytes; those that are not in it spell "x".
    """
    drawn = [*ids, END_ID][: asked["n_predict"]]
    counts = {"tokens_evaluated": len(asked["prompt"]), "tokens_predicted": 0}
    said, held = [], b""
    for number, token in enumerate(drawn):
        held += b"" if token == END_ID else (spell or {}).get(token, b"x")
        try:
            content = held.decode()
        except UnicodeDecodeError:
            continue
        held = b""
        event = {"index": 0, "content": content, "tokens": [token], "stop": False, "id_slot": 0, **counts}
        event["tokens_predicted"] = number + 1
        if asked.get("n_probs"):
            top = [{"id": each, "logprob": value, "token": "canary", "bytes": []} for each, value in
                   ((3, -0.25), (token, -0.5), (4, -2.0))]  # fmt: skip
            event["completion_probabilities"] = [
                {"id": token, "logprob": -0.5, "token": "canary", "bytes": [], "top_logprobs": top}
            ]
        said.append(event)
    kind = "eos" if drawn[-1] == END_ID else "limit"
    last = {"index": 0, "content": "", "tokens": [], "stop": True, "model": model, "prompt": "canary", **counts}
    return [*said, last | {"tokens_predicted": len(drawn), "stop_type": kind, "truncated": False}]
