"""Drop-in clients: `from confide import OpenAI` where `from openai import OpenAI` stood. openai 2.x and 3.x."""

import importlib
import os
from abc import abstractmethod
from typing import Any

from confide_protocol.errors import ConfideError, LocalStateError

from confide.anyhttp import AsyncVerifiedTransport, VerifiedTransport
from confide.relay import PolicySource, Relay
from confide.transport import Verified, transports

try:
    import openai
except ImportError:
    raise ImportError("confide.OpenAI needs the openai package: pip install 'confide[openai]'") from None

# openai 3 speaks httpx2, openai 2 speaks httpx.
_HTTP = importlib.import_module("httpx2" if int(openai.__version__.partition(".")[0]) >= 3 else "httpx")
_TRANSPORT, _ASYNC_TRANSPORT = transports(_HTTP)
# openai's WebSocket calls pass its HTTP client by, and so the seal: they get an address that leads nowhere.
NO_WEBSOCKETS = "wss://127.0.0.1:0/websockets-cannot-be-sealed"
RELAY_OPTIONS = ("allow_simulated", "memory", "limits", "link")


def _sealed(transport: type[Any], client: type[Any], options: dict[str, Any]) -> Relay:
    """Put the HTTP client that seals into `options`; take out what is ours. Raises: ConfideError."""
    relay_options = {name: options.pop(name) for name in RELAY_OPTIONS if name in options}
    policy: PolicySource = options.pop("policy", None)
    given = options.get("http_client")
    if given is not None:
        # with_options() and copy() hand the same client on. Proxies and mounts of its own would go before ours.
        carried = getattr(given, "_transport", None)
        ours = (transport, VerifiedTransport, AsyncVerifiedTransport)
        if not isinstance(carried, ours) or given._mounts or policy is not None or relay_options:
            raise LocalStateError("http_client would bypass the seal; build one on confide.transport instead")
        relay: Relay = carried.relay
    else:
        base_url = options.get("base_url")
        if base_url is None:
            raise LocalStateError("base_url must be the gateway's URL")
        sealing = transport(str(base_url), policy, **relay_options)
        relay = sealing.relay
        options["http_client"] = _client(client, sealing)
    options["base_url"] = relay.url + "/v1"
    options["websocket_base_url"] = NO_WEBSOCKETS
    if options.get("api_key") is None and options.get("workload_identity") is None:
        options["api_key"] = os.environ.get("CONFIDE_API_KEY")
        if not options["api_key"]:
            raise LocalStateError(
                "the gateway's key is missing: pass api_key=, or set CONFIDE_API_KEY; OPENAI_API_KEY is not read, "
                "since a key of OpenAI's is none of the gateway's business"
            )
    options.setdefault("max_retries", 0)
    return relay


def _client(kind: type[Any], transport: Any) -> Any:  # noqa: ANN401
    return kind(transport=transport, timeout=openai.DEFAULT_TIMEOUT, trust_env=False)


def _forget_environment(client: Any, options: dict[str, Any]) -> None:  # noqa: ANN401
    """Take the keys out of `client` that openai read in OPENAI_ADMIN_KEY and OPENAI_CUSTOM_HEADERS.

    The gateway sees the field `authorization`, outside the seal; whatever else they name stays and is sealed.
    """
    client.admin_api_key = options.get("admin_api_key")
    given = options.get("default_headers") or {}
    client._custom_headers = {
        name: value
        for name, value in client._custom_headers.items()
        if name.lower() != "authorization" or name in given
    }


def _own_fault(error: Exception) -> ConfideError | None:
    """openai 2.x wraps whatever a transport raises; take our own errors out again."""
    return error.__cause__ if isinstance(error.__cause__, ConfideError) else None


class _Attested(Verified):
    """What a sealed client knows beyond an OpenAI client."""

    _relay: Relay

    def copy(self, *, policy: PolicySource = None, shape: str | None = None, **options: Any) -> Any:  # noqa: ANN401
        """Copy as openai does; `policy` and `shape` hold for the copy's calls alone.

            client.with_options(shape="none").chat.completions.create(…)

        The copy has an `attestation` and a `last_receipt` of its own. Evidence that is at hand is judged anew under
        its policy, so that most often no byte is sent for it. Raises: PolicyError.
        """
        if policy is not None or shape is not None:
            options["http_client"] = self._client_of(self.relay.narrowed(policy, shape))
        return super().copy(**options)  # type: ignore[misc]

    with_options = copy

    @abstractmethod
    def _client_of(self, relay: Relay) -> Any:  # noqa: ANN401
        """Return an HTTP client of openai's kind whose requests go through the relay."""


class OpenAI(_Attested, openai.OpenAI):
    """openai.OpenAI whose every request is sealed to an enclave that was verified first.

    Beyond openai's own arguments: `policy` (a local file or an AppraisalPolicy; demanded), `allow_simulated`,
    `memory`, `limits`, `link` (see `confide.relay`). `base_url` is the gateway, `api_key` its key, by default that
    in CONFIDE_API_KEY: keys in openai's own environment variables are never used. No request is retried unless
    `max_retries` says so, and none that an enclave may have run (`confide.retries`).
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        self.relay = self._relay = _sealed(_TRANSPORT, _HTTP.Client, options)
        super().__init__(**options)
        _forget_environment(self, options)

    def _client_of(self, relay: Relay) -> Any:  # noqa: ANN401
        return _client(_HTTP.Client, _TRANSPORT(relay.url, relay=relay))

    def request(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        try:
            return super().request(*args, **kwargs)
        except openai.APIConnectionError as error:
            if fault := _own_fault(error):
                raise fault from None
            raise


class AsyncOpenAI(_Attested, openai.AsyncOpenAI):
    """openai.AsyncOpenAI, sealed as `OpenAI` is."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        self.relay = self._relay = _sealed(_ASYNC_TRANSPORT, _HTTP.AsyncClient, options)
        super().__init__(**options)
        _forget_environment(self, options)

    def _client_of(self, relay: Relay) -> Any:  # noqa: ANN401
        return _client(_HTTP.AsyncClient, _ASYNC_TRANSPORT(relay.url, relay=relay))

    async def request(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        try:
            return await super().request(*args, **kwargs)
        except openai.APIConnectionError as error:
            if fault := _own_fault(error):
                raise fault from None
            raise
