"""Say a published tokenizer (tokenizer.json and its companions) in GGUF's keys. Takes what golden ids vouch for."""

from typing import Any, Final, NoReturn

from confide_protocol.errors import ConfigError

from confide_enclave.engine.gguf import Scalar, Value
from confide_enclave.engine.pretokenizers import recognise
from confide_enclave.engine.tokens import CONTROL, END_NAMES, NORMAL, UNUSED, USER_DEFINED

MAX_TOKENS: Final = 1 << 20


def read_tokenizer(
    tokenizer: dict[str, Any],
    tokenizer_config: dict[str, Any],
    generation: dict[str, Any],
    *,
    config: dict[str, Any],
    template: str | None,
    file: str,
) -> dict[str, Value]:
    """Return the metadata; `template` is chat_template.jinja, where there is one. Raises: ConfigError."""

    def refuse(field: str, remedy: str) -> NoReturn:
        raise ConfigError(file, field, remedy)

    model = tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or model.get("byte_fallback"):
        refuse("tokenizer.json: model", "is not supported; use a model with a byte-level BPE tokenizer")
    odd = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk")
    if any(model.get(field) for field in odd):
        refuse("tokenizer.json: model", "cuts words in a way that is not supported")
    pre = recognise(tokenizer.get("pre_tokenizer"), tokenizer.get("normalizer"), model.get("ignore_merges"))
    if pre is None:
        refuse("tokenizer.json: pre_tokenizer", "is not one that is known here")
    kinds: dict[str, int] = {}
    numbers: dict[int, str] = {}

    def add(name: object, number: object, kind: int) -> None:
        if type(name) is not str or type(number) is not int or not 0 <= number < MAX_TOKENS:
            refuse("tokenizer.json: vocab", "holds what is no token")
        if numbers.setdefault(number, name) != name:
            refuse("tokenizer.json: vocab", "gives two tokens one id")
        kinds[name] = kind

    vocabulary = model.get("vocab")
    for name, number in (vocabulary if isinstance(vocabulary, dict) else {}).items():
        add(name, number, NORMAL)
    for entry in _list(tokenizer.get("added_tokens")):
        if not isinstance(entry, dict) or any(entry.get(way) for way in ("single_word", "lstrip", "rstrip")):
            refuse("tokenizer.json: added_tokens", "take more than their own text, which is not supported")
        add(entry.get("content"), entry.get("id"), CONTROL if entry.get("special") else USER_DEFINED)
    size = config.get("vocab_size")
    if type(size) is not int or not len(numbers) <= size <= MAX_TOKENS or max(numbers, default=0) >= size:
        refuse("config.json: vocab_size", "is less than the tokenizer's ids, or beyond all bounds")
    names: list[str] = [numbers.get(number, f"[PAD{number}]") for number in range(size)]
    merges: list[Scalar] = [
        merge if isinstance(merge, str) else " ".join(map(str, _list(merge)))
        for merge in _list(model.get("merges"))
    ]
    ids = {name: number for number, name in enumerate(names)}
    ends = [
        number
        for tree, field in ((tokenizer_config, "eos_token"), (generation, "eos_token_id"), (config, "eos_token_id"))
        for number in _ids(tree.get(field), ids)
    ]
    if not ends:
        refuse("tokenizer_config.json: eos_token", "is missing; it ends an answer")
    starts = [*_ids(tokenizer_config.get("bos_token"), ids), *_ids(config.get("bos_token_id"), ids), ends[0]]
    chat = _template(tokenizer_config.get("chat_template") if template is None else template)
    if chat is None:
        refuse("chat_template", "is missing; use a model for chat")
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [*names],
        "tokenizer.ggml.token_type": [kinds.get(name, UNUSED) for name in names],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": starts[0],
        "tokenizer.ggml.eos_token_id": ends[0],
        "tokenizer.ggml.eot_token_id": next((end for end in ends[1:] if names[end] not in END_NAMES), ends[0]),
        "tokenizer.ggml.add_bos_token": _adds_bos(tokenizer, tokenizer_config, names[starts[0]]),
        "tokenizer.chat_template": chat,
    }


def _list(tree: object) -> list[Any]:
    return tree if isinstance(tree, list) else []


def _ids(tree: object, ids: dict[str, int]) -> list[int]:
    """Return the ids that a name, an id, a list of ids or a token's description stands for, if they are known."""
    if isinstance(tree, dict):
        tree = tree.get("content")
    if isinstance(tree, str):
        return [ids[tree]] if tree in ids else []
    return [number for number in _list(tree) or [tree] if type(number) is int and 0 <= number < len(ids)]


def _adds_bos(tokenizer: dict[str, Any], tokenizer_config: dict[str, Any], bos: str) -> bool:
    if type(tokenizer_config.get("add_bos_token")) is bool:
        return bool(tokenizer_config["add_bos_token"])
    processor = tokenizer.get("post_processor") or {}
    steps = [processor, *_list(processor.get("processors"))] if isinstance(processor, dict) else []
    firsts = [_list(step.get("single"))[:1] for step in steps if isinstance(step, dict)]
    return [{"SpecialToken": {"id": bos, "type_id": 0}}] in firsts


def _template(tree: object) -> str | None:
    """Return the template, or of several the one that is named default."""
    for each in _list(tree):
        if isinstance(each, dict) and each.get("name") == "default":
            return _template(each.get("template"))
    return tree if isinstance(tree, str) else None
