"""The servers that the enclave knows, and in what they differ."""

from collections.abc import Mapping
from typing import Final

from confide_enclave.remote.servers.llama_cpp import LLAMA_CPP
from confide_enclave.remote.servers.server import Server, Start
from confide_enclave.remote.servers.sglang import SGLANG
from confide_enclave.remote.servers.vllm import VLLM

__all__ = ["SERVERS", "Server", "Start"]

SERVERS: Final[Mapping[str, Server]] = {server.name: server for server in (VLLM, SGLANG, LLAMA_CPP)}
