"""The real processes on loopback: simulated device, enclave with the default model, gateway. Ready once a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import confide
from confide.playground import Platform, Playground, playground
from confide.policy_memory import PolicyMemory
from confide.relay import Relay

QUESTION = "What is the capital of France? Answer in one sentence."
ANSWER = "Paris"


@dataclass
class Stack:
    """A running playground and how tests reach it."""

    ground: Playground
    enclave_url: str

    @property
    def url(self) -> str:
        return self.ground.gateway_url

    @property
    def model(self) -> str:
        return self.relay().ready().manifest.model

    def options(self, **more: Any) -> dict[str, Any]:
        """Return what a `confide.OpenAI` needs, but for its own memory."""
        return {
            "base_url": self.url,
            "api_key": self.ground.api_key,
            "policy": self.ground.policy_file,
            "allow_simulated": True,
            "memory": PolicyMemory(None),
            **more,
        }

    def relay(self, url: str | None = None, **options: Any) -> Relay:
        options = {"allow_simulated": True, "memory": PolicyMemory(None), **options}
        return Relay(url or self.url, self.ground.policy_file, api_key=self.ground.api_key, **options)

    def openai(self, **more: Any) -> confide.OpenAI:
        return confide.OpenAI(**self.options(**more))


def ask(client: Any, **options: Any) -> Any:
    """Ask the question, greedily and briefly."""
    options = {"max_tokens": 16, "temperature": 0, "messages": [{"role": "user", "content": QUESTION}], **options}
    return client.chat.completions.create(model="smollm2-135m-instruct", **options)


@contextmanager
def running_stack(
    folder: Path,
    *,
    shape: str = "bucketed",
    platform: Platform = "sev-snp",
    gpus: int = 1,
    **settings: Any,
) -> Iterator[Stack]:
    """Start everything in `folder` and stop it at the end of the block. Takes some seconds."""
    with playground(folder, shape=shape, platform=platform, gpus=gpus) as ground:
        enclave_url = ground.start(**settings)
        yield Stack(ground, enclave_url)
