"""Our SDK beside the openai client that it extends: python -m tests.bench.client_driver READY MODE [NAME].

MODE is one of peers/pairs.py. READY: url, secret, policy (a file) and, for `pairs`, the shape.
"""

import json
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "peers"))

from pairs import Exchanges, openai_exchanges, run


def plain(ready: dict[str, Any]) -> Callable[[], Exchanges]:
    import httpx2
    import openai

    def make() -> Exchanges:
        # As ours is: without the environment's proxies, and the system's certificates are not read for plain HTTP.
        nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        http = httpx2.Client(trust_env=False, timeout=openai.DEFAULT_TIMEOUT, verify=nobody)
        return openai_exchanges(openai.OpenAI(base_url=ready["url"] + "/v1", api_key="bench", http_client=http))

    return make


def sealed(ready: dict[str, Any]) -> Callable[[], Exchanges]:
    from confide import OpenAI, PolicyMemory

    def make() -> Exchanges:
        client = OpenAI(
            base_url=ready["url"],
            api_key=ready["secret"],
            policy=ready["policy"],
            allow_simulated=True,
            memory=PolicyMemory(None),
        )
        return openai_exchanges(client.with_options(shape=ready["shape"]))

    return make


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    run({"plain": lambda: plain(given), "sealed": lambda: sealed(given)}, *sys.argv[2:])
