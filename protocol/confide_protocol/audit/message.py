"""The text of one choice's message: what a receipt commits to (SPEC 9.4), the same on both sides."""

import json
from collections.abc import Sequence


def message_text(content: str, reasoning: str = "", calls: Sequence[tuple[str, str]] = ()) -> str:
    """Join reasoning, words and calls (name, arguments as JSON text) as a model writes them."""
    thought = f"<think>{reasoning}</think>" if reasoning else ""
    called = (
        f'<tool_call>{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments}}}</tool_call>'
        for name, arguments in calls
    )
    return "".join((thought, content, *called))
