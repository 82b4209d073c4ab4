"""Listens for HTTP connections, and ends them gracefully."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

from tidewheel.apps.model_server.http_connection import Exchange, Header, HttpConnection, Limits, sweep
from tidewheel.clock import Clock

LOOK_EVERY_S = 0.02


class App(Protocol):
    """Who answers: by a request's headers alone, or the whole request."""

    def check(self, headers: list[Header]) -> tuple[int, bytes, bytes] | None: ...

    def handle(self, exchange: Exchange) -> None: ...


class HttpServer:
    """One listener; ``start`` and ``stop`` on the event loop."""

    def __init__(self, app: App, listener: socket.socket, limits: Limits, clock: Clock) -> None:
        self._app, self._listener, self._limits, self._clock = app, listener, limits, clock
        self.connections: set[HttpConnection] = set()
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        app, limits, connections, clock = self._app, self._limits, self.connections, self._clock
        self._server = await loop.create_server(
            lambda: HttpConnection(app.handle, app.check, limits, connections, clock), sock=self._listener, backlog=2048
        )
        self._sweeping = loop.create_task(sweep(connections, limits))

    async def stop(self, grace_s: float) -> None:
        """Take no more connections, answer what is owed, and abort what is left after ``grace_s``."""
        assert self._server is not None and self._sweeping is not None
        self._server.close()
        for connection in tuple(self.connections):
            connection.drain()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        while self.connections and loop.time() < deadline:
            await asyncio.sleep(LOOK_EVERY_S)
        for connection in tuple(self.connections):
            connection.abort()
        self._sweeping.cancel()
