"""Embeddings: texts to vectors, one at a time on one thread, so that no neighbour and no core changes a bit."""

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import structlog
import torch
from confide_protocol.errors import CapacityExceeded, ConfigError, ContextTooLong, EngineError
from tokenizers import Tokenizer

from confide_enclave.engine import Embedded, Embedder, ModelCard
from confide_enclave.engine.directory import Directory
from confide_enclave.engine.encoder_card import EncoderLimits, read_encoder_card
from confide_enclave.engine.encoder_model import Bert

log = structlog.get_logger(__name__)
_TEXT_CHARS_A_TOKEN: Final = 64


class WordPiece:
    """The tokenizer of BERT's family. What looks like a special token in a text is its characters, no token."""

    def __init__(self, tree: dict[str, Any], file: str) -> None:
        """`tree` is a tokenizer.json. Raises: ConfigError when it is not of the kind that the tests vouch for."""
        plain = tree | {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        try:
            kinds = [tree[part]["type"] for part in ("normalizer", "pre_tokenizer", "model")]
            vocabulary = tree["model"]["vocab"]
            self._start, self._end, _ = (
                vocabulary[name] for name in ("[CLS]", "[SEP]", tree["model"]["unk_token"])
            )
            self._tokenizer = Tokenizer.from_str(json.dumps(plain))
        except Exception:  # noqa: BLE001 - the library raises bare Exception
            kinds = []
        if kinds != ["BertNormalizer", "BertPreTokenizer", "WordPiece"]:
            raise ConfigError(file, "tokenizer.json", "is not that of a BERT encoder")
        self.size: Final = 1 + max(vocabulary.values())

    def encode(self, text: str) -> list[int]:
        """Return the ids, [CLS] first and [SEP] last."""
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return [self._start, *self._tokenizer.encode(whole, add_special_tokens=False).ids, self._end]


class BertEmbedder(Embedder):
    """Owns one thread, on which all of its calls wait their turn, a text at a time."""

    def __init__(self, path: Path, name: str, limits: EncoderLimits) -> None:
        """Read a published directory; takes a second. Raises: ConfigError."""
        directory = Directory(path, load=True)
        self._card = read_encoder_card(directory, name)
        self._tokens = WordPiece(directory.json("tokenizer.json"), str(path))
        self._model = Bert(directory)
        if self._tokens.size > self._model.config.vocabulary:
            raise ConfigError(str(path), "tokenizer.json", "has more tokens than the model has vectors")
        self._limits = limits
        self._waiting = 0
        self._closed = False
        self._worker = ThreadPoolExecutor(1, "confide-encoder", initializer=torch.set_num_threads, initargs=(1,))

    @property
    def card(self) -> ModelCard:
        return self._card

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Return one vector of length 1 per text, whatever else is asked for at the same time."""
        if len(texts) > self._limits.max_texts:
            raise ContextTooLong(f"more than {self._limits.max_texts} texts")
        if self._waiting > self._limits.max_waiting:
            raise CapacityExceeded
        self._waiting += 1
        try:
            prompts = await self._run(self._encode_all, texts)
            vectors = [await self._run(self._model.encode, prompt) for prompt in prompts]
        finally:
            self._waiting -= 1
        return Embedded(vectors, [len(prompt) for prompt in prompts])

    async def close(self) -> None:
        """Stop after the text in progress; whoever still waits gets EngineError."""
        self._closed = True
        await asyncio.to_thread(self._worker.shutdown, cancel_futures=True)

    async def _run(self, work: Any, argument: Any) -> Any:  # noqa: ANN401
        if self._closed:
            raise EngineError("the encoder is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, work, argument)
        except asyncio.CancelledError:
            # Ours, or that of work which close() called off.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise EngineError("the encoder is closed") from None
        except EngineError:
            raise
        except Exception as fault:  # noqa: BLE001 - the text may show what it computed on; its kind does not
            log.error("encoder_failed", kind=type(fault).__name__)  # noqa: TRY400
            raise EngineError from None

    def _encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        prompts, most = [], self._card.context_tokens
        left = self._limits.max_tokens
        for text in texts:
            prompt = self._tokens.encode(text) if len(text) <= most * _TEXT_CHARS_A_TOKEN else []
            left -= len(prompt)
            if not prompt or len(prompt) > most or left < 0:
                raise ContextTooLong(
                    f"a text of at most {most} tokens, {self._limits.max_tokens} in all, can be embedded"
                )
            prompts.append(prompt)
        return prompts
