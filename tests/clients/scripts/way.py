"""Where a script goes: straight to the gateway over a verified transport, or in clear to the proxy."""

import os
import sys

DIRECT = sys.argv[1] == "direct"
MODEL = "smollm2-135m-instruct"
QUESTION = "What is the capital of France? Answer in one sentence."
BASE_URL = (os.environ["CONFIDE_URL"] if DIRECT else os.environ["PROXY_URL"]) + "/v1"
KEY = os.environ["CONFIDE_API_KEY"] if DIRECT else os.environ["PROXY_KEY"]


def transport(*, asynchronous: bool = False):
    """Return the verified transport of this way, or None: the library's own then."""
    if not DIRECT:
        return None
    import confide

    make = confide.async_verified_transport if asynchronous else confide.verified_transport
    memory = confide.PolicyMemory(None)
    url = os.environ["CONFIDE_URL"]
    return make(url, policy="policy.toml", api_key=KEY, allow_simulated=True, memory=memory)
