"""The gateway as one ASGI application: the relay's paths first, then Starlette for the rest."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path

from confide_protocol import labels
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from confide_gateway.asgi import Receive, Scope, Send
from confide_gateway.cors import Cors
from confide_gateway.directory import Directory, Judge, Node
from confide_gateway.forward import Target, UpstreamPool
from confide_gateway.forward.own import OwnPool
from confide_gateway.forward.reference import HttpxPool
from confide_gateway.keys import KeyFile
from confide_gateway.limits import Accounts
from confide_gateway.logs import Log
from confide_gateway.metrics import Metrics
from confide_gateway.relay import Relay
from confide_gateway.settings import GatewaySettings


class Gateway:
    """Everything that lives as long as the server does. Make it inside the server's loop."""

    def __init__(
        self, settings: GatewaySettings, targets: list[Target], api_keys: KeyFile, judge: Judge, log: Log
    ) -> None:
        limits = settings.limits
        nodes = [Node(target.authority, _pool(settings.forwarder, target)) for target in targets]
        self._log = log
        self._metrics = Metrics(nodes)
        self._accounts = Accounts(api_keys)
        self._directory = Directory(nodes, judge, settings.appraisal, limits, self._metrics, log)
        self._relay = Relay(
            self._directory,
            self._accounts,
            Cors(settings.cors_origins, ehbp=settings.dialects.ehbp),
            limits,
            self._metrics,
            log,
            log_requests=settings.log.requests,
            ehbp=settings.dialects.ehbp,
        )
        self._control = Starlette(
            routes=[
                Route(labels.PATH_HEALTH, _health, methods=["GET"]),
                Route("/readyz", self._ready, methods=["GET"]),
                Route("/metrics", self._render, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _problem},
        )
        self._following: asyncio.Task[None] | None = None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if self._relay.serves(scope["path"]):
            return self._relay(scope, receive, send)
        return self._control(scope, receive, send)

    def start(self, api_keys: Path) -> None:
        """Begin to appraise the nodes and to follow the file of API keys."""
        self._directory.start()
        self._following = asyncio.create_task(self._accounts.follow(api_keys, self._log))

    async def aclose(self) -> None:
        if self._following is not None:
            self._following.cancel()
        await self._directory.aclose()

    async def drained(self) -> None:
        """Be no longer ready, refuse new exchanges, and wait until those under way have ended."""
        self._log.info("draining", in_flight=self._metrics.in_flight)
        self._relay.drain()
        await self._relay.idle.wait()

    def cut(self) -> None:
        """Wait for exchanges no longer."""
        self._relay.idle.set()

    async def _ready(self, _request: Request) -> Response:
        if self._relay.draining or not self._directory.ready:
            return _answer(503)
        return JSONResponse({"status": "ready"})

    async def _render(self, _request: Request) -> Response:
        return Response(self._metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _pool(forwarder: str, target: Target) -> UpstreamPool:
    return OwnPool(target) if forwarder == "httptools" else HttpxPool(target)


async def _health(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def _problem(_request: Request, fault: Exception) -> Response:
    status = fault.status_code if isinstance(fault, HTTPException) else 400
    return _answer(status if status in labels.PROBLEMS else 400)


def _answer(status: int) -> Response:
    return Response(labels.PROBLEMS[status], status, media_type=labels.MEDIA_PROBLEM)
