"""An enclave process with the scripted engine: `python -m tests.fakes.scripted_enclave CONFIG SECRET STEP_S`.

It is `confide enclave` but for the engine and the device; each change of the engine's state is a line on stdout.
"""

import json
import secrets
import sys
from pathlib import Path

from confide_enclave import logs
from confide_enclave.hardening import forbid_core_dumps
from confide_enclave.node import assemble
from confide_enclave.server import bind, serve
from confide_enclave.serving import Enclave
from confide_enclave.settings import load_settings

from tests.fakes.engine import ScriptedEngine
from tests.unit.enclave.support import FakeDevice


class ReportingEngine(ScriptedEngine):
    async def generate(self, request):
        try:
            async for delta in super().generate(request):
                yield delta
        finally:
            print(json.dumps({"ended": len(self.requests)}), flush=True)


def main() -> None:
    config, secret, step_s = sys.argv[1:]
    forbid_core_dumps()
    logs.configure(sys.stderr)
    settings = load_settings(Path(config))
    listener = bind(config, settings.host, settings.port)
    engine = ReportingEngine([f" word{n}" for n in range(1000)], step_s=float(step_s))
    app, holder, manifest = assemble(settings, [engine], FakeDevice(), secret.encode(), random=secrets.token_bytes)
    serve(
        Enclave(app, [engine]),
        listener,
        settings.limits,
        {"keyset": holder.current.digest.hex(), "manifest": manifest.digest.hex()},
    )


if __name__ == "__main__":
    main()
