"""Reads from one Redis without waiting: each read has a connection for itself while it is under way.

A read that takes too long loses its connection, since replies may be on their way that belong to nobody; reads that
come after it have others. Nothing is asked twice, but for a connection that the server closed while it lay idle.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from tidewheel.adapters.redis_link import MAX_IDLE
from tidewheel.adapters.redis_reads import ReadLayout, blobs_of, packed
from tidewheel.adapters.redis_stream import RedisStream, opened
from tidewheel.adapters.redis_url import RedisAddress
from tidewheel.errors import Unavailable
from tidewheel.features.ports import Fetched, Wanted

# Replies that say something of the server, not of one key.
_OF_THE_SERVER = (
    "LOADING",
    "NOAUTH",
    "NOPERM",
    "MASTERDOWN",
    "MOVED",
    "CLUSTERDOWN",
    "BUSY",
    "OOM",
    "MISCONF",
    "WRONGPASS",
)
_KEPT_OPEN = 2


class RedisFetcher:
    """A FetchingStore of one event loop."""

    def __init__(self, address: RedisAddress, password: str | None, loop: asyncio.AbstractEventLoop) -> None:
        self._address, self._password, self._loop = address, password, loop
        self._layout = ReadLayout()
        self._idle: deque[RedisStream] = deque()
        self._waiting: deque[_Read] = deque()  # for a connection
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False

    def open(self) -> None:
        """Connect ahead of the first reads."""
        for _ in range(_KEPT_OPEN):
            self._connect()

    def fetch(self, wanted: Wanted, timeout_us: int, done: Callable[[Fetched | Unavailable], None]) -> None:
        if not wanted:
            self._loop.call_soon(done, Fetched([]))
            return
        _Read(self, wanted, timeout_us, done)

    def close(self) -> None:
        self._closed = True
        for task in tuple(self._opening):
            task.cancel()
        for stream in tuple(self._idle):
            stream.abort(ConnectionResetError("closed"))

    def taken(self, read: _Read) -> RedisStream | None:
        """A connection for a read, or None where it has to wait for one."""
        if self._idle:
            return self._idle.pop()
        self._waiting.append(read)
        self._connect()
        return None

    def gave_up(self, read: _Read) -> None:
        """A read that waited for a connection waits no more."""
        if read in self._waiting:
            self._waiting.remove(read)

    def returned(self, stream: RedisStream) -> None:
        if self._waiting:
            self._waiting.popleft().connected(stream)
        elif len(self._idle) < MAX_IDLE and not self._closed:
            self._idle.append(stream)
        else:
            stream.abort(ConnectionResetError("not needed"))

    def forget_idle(self) -> None:
        """The server closed one that lay idle, and the others with it."""
        for stream in tuple(self._idle):
            stream.abort(ConnectionResetError("stale"))

    def unavailable(self, error: object) -> Unavailable:
        return Unavailable(f"{self._address}: the online store does not answer ({error})")

    @property
    def layout(self) -> ReadLayout:
        return self._layout

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def _connect(self) -> None:
        task = self._loop.create_task(self._connected())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connected(self) -> None:
        try:
            stream = await opened(self._address, self._address.nodes[0], self._password, self._lost)
        except OSError as error:
            said = error.strerror or str(error) or type(error).__name__
            waiting, self._waiting = self._waiting, deque()
            for read in waiting:
                read.failed(said)
            return
        self.returned(stream)

    def _lost(self, stream: RedisStream) -> None:
        if stream in self._idle:
            self._idle.remove(stream)


class _Read:
    """One read on its way."""

    __slots__ = (
        "_done",
        "_groups",
        "_n",
        "_n_wanted",
        "_owner",
        "_packed",
        "_repeated",
        "_stream",
        "_timeout_us",
        "_timer",
    )

    def __init__(
        self, owner: RedisFetcher, wanted: Wanted, timeout_us: int, done: Callable[[Fetched | Unavailable], None]
    ) -> None:
        self._owner, self._timeout_us, self._done = owner, timeout_us, done
        self._groups, self._n_wanted = owner.layout.groups(wanted), len(wanted)
        self._packed, self._n = packed(self._groups)
        self._repeated = False
        self._timer = owner.loop.call_later(timeout_us / 1e6, self._late)
        self._begin()

    def _begin(self) -> None:
        self._stream = self._owner.taken(self)
        if self._stream is not None:
            self._stream.run(self._packed, self._n, self._answered)

    def connected(self, stream: RedisStream) -> None:
        self._stream = stream
        stream.run(self._packed, self._n, self._answered)

    def failed(self, error: object) -> None:
        self._timer.cancel()
        self._done(self._owner.unavailable(error))

    def _late(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            self._owner.gave_up(self)
        else:
            stream.forget()
            stream.abort(TimeoutError())
        self._done(self._owner.unavailable(f"nothing within {self._timeout_us / 1000:g} ms"))

    def _answered(self, replies: list[object] | OSError) -> None:
        stream = self._stream
        assert stream is not None
        if isinstance(replies, OSError):
            self._stream = None
            if stream.used and not self._repeated:
                self._repeated = True
                self._owner.forget_idle()
                self._begin()
                return
            self.failed(replies)
            return
        self._timer.cancel()
        self._owner.returned(stream)
        blobs, refused = blobs_of(self._groups, self._n_wanted, replies)
        if refused:
            of_server = next((said for said in refused.values() if said.startswith(_OF_THE_SERVER)), None)
            if of_server is not None:
                self._done(self._owner.unavailable(of_server))
                return
        self._done(Fetched(blobs, refused))
