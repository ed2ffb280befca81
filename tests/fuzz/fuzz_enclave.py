"""What an enclave reads after the seal is open, what its devices say, and what the simulated ones read."""

import contextlib
from collections.abc import Callable
from functools import cache

from confide_attestation.evidence import CpuKind
from confide_enclave.api.parameters import ChatParameters, CompletionParameters
from confide_enclave.api.reading import parse_parameters
from confide_enclave.app import read_freshness
from confide_enclave.errors import DeviceUnavailable, Refusal
from confide_enclave.simulated import parse_cpu, parse_gpus, parse_states
from confide_protocol import cbor
from confide_sim.device import answer
from confide_sim.machine import SimulatedMachine


def chat_parameters(data: bytes) -> None:
    with contextlib.suppress(Refusal):
        parse_parameters(data, ChatParameters)


def completion_parameters(data: bytes) -> None:
    with contextlib.suppress(Refusal):
        parse_parameters(data, CompletionParameters)


def device_reply(data: bytes) -> None:
    for parse in (parse_cpu, parse_gpus, parse_states):
        with contextlib.suppress(DeviceUnavailable):
            parse(data)


@cache
def machine() -> SimulatedMachine:
    return SimulatedMachine.make(1_800_000_000, kind=CpuKind.TDX, gpus=1)


def device_request(data: bytes) -> None:
    reply = answer(machine(), data)
    assert reply is None or cbor.decode(reply)


def evidence_query(data: bytes) -> None:
    asked = read_freshness(data)
    assert asked is None or len(asked[0]) == 32


def seeds() -> dict[str, list[bytes]]:
    """Offer good requests and good replies."""
    requests = [{"report_data": bytes(64)}, {"gpu_nonce": bytes(32)}, {"gpu_states": True}]
    encoded = [cbor.encode(request) for request in requests]
    replies = [reply for request in encoded if (reply := answer(machine(), request)) is not None]
    queries = [name + b"=" + b"0a" * 32 for name in (b"nonce", b"epoch")]
    return {"device_request": encoded, "device_reply": replies, "evidence_query": queries}


TARGETS: dict[str, Callable[[bytes], None]] = {
    "chat_parameters": chat_parameters,
    "completion_parameters": completion_parameters,
    "device_reply": device_reply,
    "device_request": device_request,
    "evidence_query": evidence_query,
}
