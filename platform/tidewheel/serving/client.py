"""An open-loop HTTP client: sends at the times it said, never retries, times each request from its scheduled moment.

A slow server therefore shows as latency and not as a lower rate. Connections are kept; a lost one fails what was on
it and is opened again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools
import msgspec
import numpy as np

from tidewheel.clock import Clock
from tidewheel.errors import InputError
from tidewheel.serving.arrivals import evenly

TIMEOUT_US = 10_000_000
TICK_S = 0.001
TICK_US = 1_000
TURN_S = 0.02  # time-outs and progress are looked at this often while every connection waits for its answer


class _Output(msgspec.Struct):
    name: str
    data: list[float | str | bool | None]


class _Reply(msgspec.Struct):
    outputs: list[_Output]


_reply_decoder = msgspec.json.Decoder(_Reply)
_reply_error = msgspec.json.Decoder(dict[str, str])


@dataclass
class LoadResult:
    """What came back. Latencies in microseconds, of replies with status 200. ``lags_us``: how late the client
    itself was for each request; where that is long it, not the server, was measured."""

    n_requests: int = 0
    n_ok: int = 0
    n_failed: int = 0
    n_degraded: int = 0
    duration_us: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    latencies_us: list[int] = field(default_factory=list)
    lags_us: list[int] = field(default_factory=list)
    first_error: str = ""

    def percentile_ms(self, percent: float, newest: int = 0) -> float:
        """Latency percentile over all replies, or over the ``newest`` ones; NaN where there is none."""
        chosen = self.latencies_us[-newest:] if newest else self.latencies_us
        return float(np.percentile(chosen, percent)) / 1000 if chosen else math.nan

    def rate_rps(self) -> float:
        return self.n_requests / (self.duration_us / 1e6) if self.duration_us else math.nan


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on it."""

    def __init__(self, load: OpenLoop) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self.scheduled_us = self.sent_us = 0
        self.busy = False

    def send(self, data: bytes, scheduled_us: int, now_us: int) -> None:
        assert self._transport is not None
        self.busy, self.scheduled_us, self.sent_us = True, scheduled_us, now_us
        self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit from it

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._load.failed(self, f"not HTTP: {error}")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(self, exc)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        self._body.clear()
        status, keep = self._parser.get_status_code(), self._parser.should_keep_alive()
        self._parser = httptools.HttpResponseParser(self)
        self._load.answered(self, status, body, keep)


class OpenLoop:
    """Sends bodies to one endpoint, ``rate_rps`` per second, or as fast as ``connections`` allow where it is None.

    ``arrivals`` are the moments to send at, in microseconds from the start, evenly spaced by default. An ``exact`` loop
    does not sleep over a moment: its latencies are good to some microseconds, and it takes a core for itself.
    """

    def __init__(
        self,
        url: str,
        path: str,
        connections: int,
        rate_rps: float | None,
        clock: Clock,
        progress: Callable[[int, LoadResult], None] = lambda n, result: None,
        *,
        arrivals: Iterator[int] | None = None,
        exact: bool = False,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise InputError(f"url: must be http://HOST:PORT (got {url!r})")
        self._host, self._port = parts.hostname, parts.port or 80
        self._head = (
            f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\ncontent-length: "
        ).encode()
        self._n_connections, self._exact = connections, exact
        self._arrivals = evenly(rate_rps) if arrivals is None and rate_rps is not None else arrivals
        self._clock, self._progress = clock, progress
        self._idle: deque[_Connection] = deque()
        self._all: set[_Connection] = set()
        self._opening = 0
        self._ready: deque[tuple[int, bytes]] = deque()
        self.result = LoadResult()
        self._tasks: set[asyncio.Task[None]] = set()
        self._freed = asyncio.Event()
        self._tick: asyncio.TimerHandle | None = None

    async def run(self, bodies: Iterator[bytes]) -> LoadResult:
        """Send everything and wait for every answer."""
        first = next(bodies, None)
        if first is None:
            return self.result
        await asyncio.gather(*(self._open() for _ in range(self._n_connections)))
        began_us = self._clock.monotonic_us()
        told_us, told_n = began_us, 0
        ended = False
        upcoming: bytes | None = first
        due_us = self._due_us(began_us)
        while not ended or self._outstanding():
            now_us = self._clock.monotonic_us()
            while upcoming is not None and (self._is_free() if due_us is None else now_us >= due_us):
                if due_us is not None:
                    self.result.lags_us.append(now_us - due_us)
                self._ready.append((now_us if due_us is None else due_us, upcoming))
                upcoming, due_us = next(bodies, None), self._due_us(began_us)
                self._dispatch()
            ended = upcoming is None
            self._time_out(now_us)
            self.result.duration_us = now_us - began_us
            if now_us - told_us > 250_000:
                self._progress(self.result.n_requests - told_n, self.result)
                told_us, told_n = now_us, self.result.n_requests
            if due_us is None and not ended:
                await self._until_freed()
            else:
                soon = self._exact and not ended and due_us is not None and due_us - now_us < 2 * TICK_US
                await asyncio.sleep(0 if soon else TICK_S)
        if self._tick is not None:
            self._tick.cancel()
        self.result.duration_us = self._clock.monotonic_us() - began_us
        self._progress(self.result.n_requests - told_n, self.result)
        for connection in tuple(self._all):
            connection.close()
        return self.result

    async def _until_freed(self) -> None:
        """Sleep until a connection is free, or a while: spinning would take the core that the server needs."""
        if self._tick is None:
            self._tick = asyncio.get_running_loop().call_later(TURN_S, self._turn)
        await self._freed.wait()
        self._freed.clear()

    def _turn(self) -> None:
        self._tick = None
        self._freed.set()

    def _due_us(self, began_us: int) -> int | None:
        """When the next request is due; None where it goes as soon as a connection is free."""
        return None if self._arrivals is None else began_us + next(self._arrivals)

    def _is_free(self) -> bool:
        return len(self._ready) == 0 and (bool(self._idle) or not self._all)

    def _outstanding(self) -> bool:
        return bool(self._ready) or any(connection.busy for connection in self._all)

    async def _open(self) -> None:
        self._opening += 1
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(TIMEOUT_US / 1e6):
                _, connection = await loop.create_connection(lambda: _Connection(self), self._host, self._port)
        except (OSError, TimeoutError) as error:
            if self._ready:  # whoever waited for this connection could not be sent
                self._ready.popleft()
                self._fail(f"connect: {(error.strerror if isinstance(error, OSError) else None) or 'timed out'}")
            return
        finally:
            self._opening -= 1
        self._all.add(connection)
        self._idle.append(connection)
        self._freed.set()
        self._dispatch()

    def _dispatch(self) -> None:
        """Put what is due on idle connections; open connections that were lost."""
        now_us = self._clock.monotonic_us()
        while self._ready and self._idle:
            scheduled_us, body = self._ready.popleft()
            data = b"%b%d\r\n\r\n%b" % (self._head, len(body), body)
            self._idle.popleft().send(data, scheduled_us, now_us)
        missing = self._n_connections - len(self._all) - self._opening
        for _ in range(min(missing, len(self._ready) - self._opening)):
            task = asyncio.get_running_loop().create_task(self._open())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def answered(self, connection: _Connection, status: int, body: bytes, keep: bool) -> None:
        if connection.busy:
            connection.busy = False
            self._count(status, body, self._clock.monotonic_us() - connection.scheduled_us)
        self._freed.set()
        if keep:
            self._idle.append(connection)
        else:
            self._all.discard(connection)
            connection.close()
        self._dispatch()

    def failed(self, connection: _Connection, why: str) -> None:
        if connection.busy:
            connection.busy = False
            self._fail(why)
        self._freed.set()
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def lost(self, connection: _Connection, error: Exception | None) -> None:
        self.failed(connection, f"connection lost: {error or 'closed by the server'}")
        self._dispatch()

    def _time_out(self, now_us: int) -> None:
        for connection in [c for c in self._all if c.busy and now_us - c.sent_us > TIMEOUT_US]:
            self.failed(connection, "timed out")
            connection.close()
        while self._ready and now_us - self._ready[0][0] > TIMEOUT_US:
            self._ready.popleft()
            self._fail("timed out before a connection was free")

    def _fail(self, why: str) -> None:
        self.result.n_requests += 1
        self.result.n_failed += 1
        self.result.errors[why] += 1
        self.result.first_error = self.result.first_error or why

    def _count(self, status: int, body: bytes, latency_us: int) -> None:
        result = self.result
        if status != 200:
            text = ""
            with contextlib.suppress(msgspec.DecodeError):
                text = _reply_error.decode(body).get("error", "")
            self._fail(f"HTTP {status}")
            result.first_error = result.first_error if result.n_failed > 1 else f"HTTP {status}: {text}"
            return
        try:
            outputs = {output.name: output.data[0] for output in _reply_decoder.decode(body).outputs}
        except (msgspec.DecodeError, IndexError):
            self._fail("not a reply of the Open Inference Protocol")
            return
        result.n_requests += 1
        result.n_ok += 1
        result.latencies_us.append(latency_us)
        result.versions[str(outputs.get("model_version", ""))] += 1
        result.decisions[str(outputs.get("decision", ""))] += 1
        if outputs.get("degraded") is True:
            result.n_degraded += 1
            result.reasons.update(str(outputs.get("reasons", "")).split(";"))
