"""One HTTP connection: uvicorn's parser with bounds on time, bytes and age.

A header or a body that trickles, an idle connection and a caller that does not read its answer are closed. One sweep
per second looks at all connections, so that a request pays for no timer. An old connection is closed after an answer,
at an age with jitter: callers that keep connections open reach new replicas that way.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tidewheel.apps.model_server.endpoint import MAX_BODY_BYTES
from tidewheel.serving.protocols.oip import encode_error

OPENED, HEADER, BODY, ANSWER, IDLE = "request", "header", "body", "answer", "idle"
_ARRIVING = {HEADER, BODY}
MAX_HEADER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Limits:
    """Seconds that a connection may spend in each state, and its age, which varies by a tenth either way; how many
    connections there may be, and how often they are looked at."""

    header_s: float = 10.0
    body_s: float = 10.0
    answer_s: float = 60.0
    idle_s: float = 75.0
    age_s: float = 300.0
    connections: int = 16_384
    sweep_s: float = 1.0

    def seconds(self, state: str) -> float:
        return {
            OPENED: self.header_s,
            HEADER: self.header_s,
            BODY: self.body_s,
            ANSWER: self.answer_s,
            IDLE: self.idle_s,
        }[state]


class HttpConnection(HttpToolsProtocol):
    """What uvicorn makes of each connection. ``limits`` is set on a subclass."""

    limits = Limits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._clock = self.loop.time
        now = self._clock()
        self._state, self._since = OPENED, now
        self._more_bytes = 0  # of a message, behind the read that it began in
        self._old_at = now + self.limits.age_s * random.uniform(0.9, 1.1)
        if len(self.connections) > self.limits.connections:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._state in _ARRIVING:
            self._more_bytes += len(data)
            if self._more_bytes > MAX_HEADER_BYTES + (MAX_BODY_BYTES if self._state == BODY else 0):
                self._refuse(431 if self._state == HEADER else 413, f"{self._state}: too large")
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._state, self._since, self._more_bytes = HEADER, self._clock(), 0

    def on_headers_complete(self) -> None:
        self._state = BODY
        super().on_headers_complete()
        if self._clock() > self._old_at:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self._state = ANSWER if not self.cycle.response_complete else IDLE
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # the sweep does it
        if self._state == ANSWER:
            self._state, self._since = IDLE, self._clock()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "request: not HTTP/1.1")

    def close_if_due(self, now: float) -> None:
        """Close where the state has lasted too long; with an answer where one is owed."""
        if now - self._since <= self.limits.seconds(self._state):
            return
        if self._state == ANSWER or self.transport.is_closing() or self.transport.get_write_buffer_size():
            self.transport.abort()  # it does not read: what is buffered would be kept for ever
        elif self._state == IDLE:
            self.transport.close()
        else:
            limit_s = self.limits.seconds(self._state)
            self._refuse(408, f"{self._state}: did not arrive within {limit_s:g} s")

    def _refuse(self, status: int, message: str) -> None:
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = encode_error(message)
            head = (
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()


def connection_class(limits: Limits) -> type[HttpConnection]:
    """The class with these limits, as uvicorn wants it."""
    return type("LimitedConnection", (HttpConnection,), {"limits": limits})


async def sweep(connections: Iterable[Any], limits: Limits) -> None:
    """Close what is due, now and then, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(limits.sweep_s)
        now = loop.time()
        for connection in tuple(connections):
            connection.close_if_due(now)
