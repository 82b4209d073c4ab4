"""HTTP/1.1 on one connection, with bounds on time, bytes and age. Parsed by llhttp; an answer is one write.

A request costs no task and no messages between layers: its handler is called with the whole request and answers at
once or later. A header or a body that trickles, an idle connection and a caller that does not read its answer are
closed. One sweep per second looks at all connections, so that a request pays for no timer. An old connection is closed
after an answer, at an age with jitter: callers that keep connections open reach new replicas that way.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus

import httptools

from tidewheel.apps.model_server.endpoint import MAX_BODY_BYTES
from tidewheel.clock import Clock
from tidewheel.serving.protocols.oip import encode_error

OPENED, HEADER, BODY, ANSWER, IDLE, LINGER = "request", "header", "body", "answer", "idle", "linger"
_ARRIVING = {HEADER, BODY}
MAX_HEADER_BYTES = 64 * 1024
# A caller that is refused while it still sends gets time to read why: a close at once would reset its connection.
LINGER_S, LINGER_BYTES = 2.0, 8 << 20
MAX_AHEAD = 64  # requests of one connection that are answered at the same time
_PHRASES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_LENGTH, _CLOSE = b"content-length: %d\r\n\r\n", b"connection: close\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Header = tuple[bytes, bytes]


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
            LINGER: LINGER_S,
        }[state]


class Exchange:
    """One request and its answer. ``headers`` have lower-case names; ``body`` is whole when the handler is called.
    ``began_us`` is monotonic, the first byte's time."""

    __slots__ = ("_connection", "_payload", "began_us", "body", "closes", "headers", "method", "url")

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection
        self._payload: bytes | None = None
        self.method, self.url, self.body = "", b"", b""
        self.headers: list[Header] = []
        self.closes = False
        self.began_us = 0

    def answer(self, status: int, body: bytes, headers: bytes, *, close: bool = False) -> None:
        """To be called once, at any time. ``headers`` are whole lines besides the length, each with its CRLF."""
        self.closes = self.closes or close
        self._payload = b"".join(
            (
                _PHRASES[status], headers, _CLOSE if self.closes else b"", _LENGTH % len(body),
                b"" if self.method == "HEAD" else body,
            )
        )  # fmt: skip
        self._connection.answered()

    @property
    def payload(self) -> bytes | None:
        return self._payload


Handler = Callable[[Exchange], None]
HeaderCheck = Callable[[list[Header]], "tuple[int, bytes, bytes] | None"]


class HttpConnection(asyncio.Protocol):
    """``check`` may refuse a request by its headers before a byte of its body is read: status, body, header lines."""

    def __init__(
        self,
        handler: Handler,
        check: HeaderCheck,
        limits: Limits,
        connections: set[HttpConnection],
        clock: Clock,
    ) -> None:
        self._handler, self._check, self._limits, self._connections = handler, check, limits, connections
        self._clock_us = clock
        self._parser = httptools.HttpRequestParser(self)
        self._exchanges: deque[Exchange] = deque()  # in the order that they came, the oldest unanswered first
        self._coming: Exchange | None = None
        self._parts: list[bytes] = []
        self._body_bytes = 0
        self._more_bytes = 0  # of a message, behind the read that it began in
        self._refused = self._paused = self._draining = self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's do not inherit from it
        self._clock = asyncio.get_running_loop().time
        now = self._clock()
        self._state, self._since = OPENED, now
        self._old_at = now + self._limits.age_s * random.uniform(0.9, 1.1)
        self._connections.add(self)
        if len(self._connections) > self._limits.connections:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._connections.discard(self)
        self._exchanges.clear()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._more_bytes += len(data)
            if self._more_bytes > LINGER_BYTES:
                self._transport.abort()
            return
        if self._state in _ARRIVING:
            self._more_bytes += len(data)
            if self._more_bytes > MAX_HEADER_BYTES + (MAX_BODY_BYTES if self._state == BODY else 0):
                self._refuse(431 if self._state == HEADER else 413, f"{self._state}: too large")
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "upgrade: not supported")
        except (httptools.HttpParserError, httptools.HttpParserCallbackError):
            if not self._refused:
                self._refuse(400, "request: not HTTP/1.1")

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._coming = Exchange(self)
        self._coming.began_us = self._clock_us.monotonic_us()
        self._parts, self._body_bytes = [], 0
        self._state, self._since, self._more_bytes = HEADER, self._clock(), 0

    def on_url(self, url: bytes) -> None:
        assert self._coming is not None
        self._coming.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._coming is not None
        self._coming.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        coming = self._coming
        assert coming is not None
        self._state = BODY
        coming.method = self._parser.get_method().decode("latin-1")
        coming.closes = not self._parser.should_keep_alive() or self._draining or self._clock() > self._old_at
        told = self._check(coming.headers)
        if told is not None:
            self._refused = True
            coming.closes = True
            self._exchanges.append(coming)
            coming.answer(*told)
            return
        if not self._exchanges and (b"expect", b"100-continue") in coming.headers:
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > MAX_BODY_BYTES:
            if not self._refused:
                self._refuse(413, f"body: at most {MAX_BODY_BYTES} bytes")
            return
        self._parts.append(body)

    def on_message_complete(self) -> None:
        coming, self._coming = self._coming, None
        if self._refused or coming is None:
            return
        coming.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._state, self._since = ANSWER, self._clock()
        self._exchanges.append(coming)
        if len(self._exchanges) >= MAX_AHEAD and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._handler(coming)

    def answered(self) -> None:
        """Write what is answered, in the order that it was asked."""
        if self.lost:
            return
        exchanges = self._exchanges
        while exchanges and (payload := exchanges[0].payload) is not None:
            closes = exchanges.popleft().closes
            self._transport.write(payload)
            if closes:
                exchanges.clear()
                self._end()
                return
        if not exchanges:
            if self._state == ANSWER:
                self._state, self._since = IDLE, self._clock()
            if self._draining and self._state in (IDLE, OPENED):
                self._transport.close()
        if self._paused and len(exchanges) < MAX_AHEAD // 2:
            self._paused = False
            self._transport.resume_reading()

    def _end(self) -> None:
        """Close; where the caller is still sending, only this side, and take in nothing of what comes."""
        self._refused = True
        if self._state not in _ARRIVING or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._state, self._since, self._more_bytes = LINGER, self._clock(), 0
        self._transport.write_eof()

    @property
    def owes(self) -> bool:
        """Whether a request waits for its answer."""
        return bool(self._exchanges)

    def drain(self) -> None:
        """Close as soon as nothing is owed."""
        self._draining = True
        if not self._exchanges and self._state in (IDLE, OPENED):
            self._transport.close()
        for exchange in self._exchanges:
            exchange.closes = exchange.closes or exchange is self._exchanges[-1]

    def abort(self) -> None:
        self._transport.abort()

    def close_if_due(self, now: float) -> None:
        """Close where the state has lasted too long; with an answer where one is owed."""
        if now - self._since <= self._limits.seconds(self._state):
            return
        if self._state == ANSWER or self._transport.is_closing() or self._transport.get_write_buffer_size():
            self._transport.abort()  # it does not read: what is buffered would be kept for ever
        elif self._state in (IDLE, LINGER):
            self._transport.close()
        else:
            limit_s = self._limits.seconds(self._state)
            self._refuse(408, f"{self._state}: did not arrive within {limit_s:g} s")

    def _refuse(self, status: int, message: str) -> None:
        """Answer what cannot be a request, behind what is owed already, and close."""
        self._refused = True
        refused = Exchange(self)
        refused.closes = True
        self._exchanges.append(refused)
        refused.answer(status, encode_error(message), b"content-type: application/json\r\n")


async def sweep(connections: Iterable[HttpConnection], limits: Limits) -> None:
    """Close what is due, now and then, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(limits.sweep_s)
        now = loop.time()
        for connection in tuple(connections):
            connection.close_if_due(now)
