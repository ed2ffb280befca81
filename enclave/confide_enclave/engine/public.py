"""System messages that the operator publishes: their token ids, as every conversation with them begins."""

from collections.abc import Sequence

from confide_protocol.errors import ConfigError, EngineError

from confide_enclave.engine import ChatMessage
from confide_enclave.engine.pages import PAGE_TOKENS
from confide_enclave.engine.tokens import Tokens


def public_ids(tokens: Tokens, texts: Sequence[str], context_tokens: int) -> list[list[int]]:
    """Return each message's ids as far as they fill pages. Raises: ConfigError."""
    return [_ids(tokens, f"public_prefixes.{i}", text, context_tokens) for i, text in enumerate(texts)]


def _ids(tokens: Tokens, field: str, text: str, context_tokens: int) -> list[int]:
    system = ChatMessage("system", text)
    try:
        # What follows differs from its first character on, so what is common to both is the system message's.
        both = [tokens.encode([system, ChatMessage("user", other)]) for other in ("a", "b")]
    except EngineError:
        raise ConfigError("engine", field, "is refused by the model's chat template; remove it") from None
    common = next(i for i, (left, right) in enumerate(zip(*both, strict=False)) if left != right)
    full = common - common % PAGE_TOKENS
    if not 0 < full < context_tokens:
        raise ConfigError("engine", field, f"must take {PAGE_TOKENS} tokens at least, and less than a context")
    return both[0][:full]
