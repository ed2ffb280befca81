"""What an enclave reads after the seal is open, and what its device says."""

import contextlib
from collections.abc import Callable

from confide_enclave.api.parameters import ChatParameters, CompletionParameters, parse_parameters
from confide_enclave.attester import parse_device_reply
from confide_enclave.errors import DeviceUnavailable, Refusal


def chat_parameters(data: bytes) -> None:
    with contextlib.suppress(Refusal):
        parse_parameters(data, ChatParameters)


def completion_parameters(data: bytes) -> None:
    with contextlib.suppress(Refusal):
        parse_parameters(data, CompletionParameters)


def device_reply(data: bytes) -> None:
    with contextlib.suppress(DeviceUnavailable):
        parse_device_reply(data, bytes(64))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "chat_parameters": chat_parameters,
    "completion_parameters": completion_parameters,
    "device_reply": device_reply,
}
