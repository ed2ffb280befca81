"""One bounded JSON request to a service beside the enclave: the metadata service, or an agent by its socket."""

from typing import Any, Final

import httpx2
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.strict_json import load_json

from confide_enclave.errors import DeviceUnavailable

MAX_ANSWER_BYTES: Final = 4 << 20


def post_json(url: str, body: dict[str, str], *, timeout_s: float, socket: str | None = None) -> dict[str, Any]:
    """Post JSON and return the JSON object of the answer. `socket` is a unix socket to go through.

    No proxy, redirect or other setting of the environment counts. Raises: DeviceUnavailable.
    """
    where = url if socket is None else socket
    transport = httpx2.HTTPTransport(uds=socket, trust_env=False)
    try:
        with (
            httpx2.Client(transport=transport, timeout=timeout_s, trust_env=False) as client,
            client.stream("POST", url, json=body) as answer,
        ):
            data = b""
            for block in answer.iter_bytes():
                data += block
                if len(data) > MAX_ANSWER_BYTES:
                    raise DeviceUnavailable(f"{where}: its answer is larger than {MAX_ANSWER_BYTES} bytes")
            status = answer.status_code
    except httpx2.TimeoutException:
        raise DeviceUnavailable(f"{where}: no answer within {timeout_s:g} s") from None
    except httpx2.ConnectError:
        raise DeviceUnavailable(f"{where}: cannot be reached") from None
    except httpx2.HTTPError:
        raise DeviceUnavailable(f"{where}: its answer is no HTTP, or ended early") from None
    if status != httpx2.codes.OK:
        raise DeviceUnavailable(f"{where}: answered with status {status}")
    try:
        tree = load_json(data, "answer")
    except EvidenceMalformed:
        tree = None
    if not isinstance(tree, dict):
        raise DeviceUnavailable(f"{where}: its answer is no JSON object")
    return tree
