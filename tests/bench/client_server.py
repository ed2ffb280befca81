"""The enclave that the clients are measured against: python -m tests.bench.client_server CONFIG.

All of an enclave, with live evidence of simulated hardware, but a scripted engine; `/v1/...` answers in clear, by
the same API and engine. It paces its words as a model does: each comes to the client by itself.
"""

import asyncio
import secrets
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from confide_enclave import logs
from confide_enclave.endorsements import Shelf
from confide_enclave.engine import Delta, GenerationRequest
from confide_enclave.node import assemble, check_machine, open_machine
from confide_enclave.server import bind, serve
from confide_enclave.serving import Enclave
from confide_enclave.settings import load_gateway_secret, load_settings

from tests.bench.peers.loopback import PACED, PAUSE_S
from tests.bench.sealed_server import WORDS, Plain
from tests.fakes.engine import ScriptedEngine


class PacingEngine(ScriptedEngine):
    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        self.step_s = PAUSE_S if request.sampling.seed == PACED else 0.0
        async for delta in super().generate(request):
            yield delta


class Both:
    """An enclave that answers in clear beside; all that a server asks of it is the enclave's."""

    def __init__(self, enclave: Enclave, plain: Plain) -> None:
        self._enclave, self._plain = enclave, plain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._enclave, name)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        clear = scope["type"] == "http" and scope["path"].startswith("/v1/")
        await (self._plain if clear else self._enclave)(scope, receive, send)


def main(config: str) -> None:
    logs.configure(sys.stderr)
    settings = load_settings(Path(config))
    secret = load_gateway_secret(Path(settings.gateway_secret_file))
    shelf = Shelf(Path(settings.endorsements_file or ""))
    listener = bind(config, settings.host, settings.port)
    attester, gpus = open_machine(settings)
    asyncio.run(check_machine(settings, attester, gpus, shelf, random=secrets.token_bytes))
    sealed, _, manifest = assemble(
        settings, [PacingEngine(WORDS)], attester, secret, shelf=shelf, gpus=gpus, random=secrets.token_bytes
    )
    app = Both(Enclave(sealed, ()), Plain(PacingEngine(WORDS)))
    serve(app, listener, settings.limits, {"manifest": manifest.digest.hex()})


if __name__ == "__main__":
    main(sys.argv[1])
