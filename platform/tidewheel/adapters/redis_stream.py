"""One Redis connection on an event loop: commands out in one write, replies parsed by hiredis as they come."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from tidewheel.adapters.redis_link import CONNECT_TIMEOUT_S, Command, Node, ReplyError
from tidewheel.adapters.redis_url import RedisAddress

_MORE = object()
Replies = Callable[["list[Any] | OSError"], None]


class RedisStream(asyncio.Protocol):
    """At most one batch of commands is on its way. ``lost`` is called once, when the connection is gone."""

    def __init__(self, lost: Callable[[RedisStream], None]) -> None:
        self._lost = lost
        self._transport: asyncio.WriteTransport | None = None
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._replies: list[Any] = []
        self._n = 0
        self._done: Replies | None = None
        self.used = False  # whether it has answered before
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's do not inherit from it

    def run(self, packed: bytes, n: int, done: Replies) -> None:
        """Send ``n`` commands; ``done`` gets a reply of each, errors among them as values, or why there are none."""
        assert self._transport is not None and self._done is None
        self._n, self._done = n, done
        self._transport.write(packed)

    def forget(self) -> None:
        """Nobody waits for what is on its way."""
        self._done = None

    def data_received(self, data: bytes) -> None:
        replies = self._replies
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _MORE:
                replies.append(reply)
        except hiredis.HiredisError as error:
            self.abort(OSError(f"not the protocol of Redis: {error}"))
            return
        if len(replies) < self._n:
            return
        done = self._done
        if done is None or len(replies) > self._n:
            self.abort(OSError("replies that nobody asked for"))
            return
        self._replies, self._n, self._done, self.used = [], 0, None, True
        done(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        self.abort(exc if isinstance(exc, OSError) else ConnectionResetError("the server closed the connection"))

    def abort(self, error: OSError) -> None:
        """Close for good: replies may be on their way that belong to nobody."""
        if self.closed:
            return
        self.closed = True
        if self._transport is not None:
            self._transport.abort()
        done, self._done = self._done, None
        self._lost(self)
        if done is not None:
            done(error)


async def opened(
    address: RedisAddress, node: Node, password: str | None, lost: Callable[[RedisStream], None]
) -> RedisStream:
    """A connection that has said who it is. Raises OSError, TimeoutError among them."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        _, stream = await loop.create_connection(
            lambda: RedisStream(lost), *node, ssl=_tls(address), server_hostname=node[0] if address.tls else None
        )
        hello: list[Command] = []
        if address.user:
            hello.append((b"AUTH", address.user.encode(), (password or "").encode()))
        elif password is not None:
            hello.append((b"AUTH", password.encode()))
        if address.db:
            hello.append((b"SELECT", str(address.db).encode()))
        if hello:
            try:
                await _greeted(stream, hello)
            except BaseException:
                stream.abort(ConnectionResetError("not greeted"))
                raise
    return stream


async def _greeted(stream: RedisStream, hello: Sequence[Command]) -> None:
    told: asyncio.Future[list[Any] | OSError] = asyncio.get_running_loop().create_future()
    packed = b"".join(map(hiredis.pack_command, hello))  # type: ignore[arg-type]  # its stub wants a tuple
    stream.run(packed, len(hello), lambda replies: None if told.done() else told.set_result(replies))
    replies = await told
    if isinstance(replies, OSError):
        raise replies
    for reply in replies:
        if isinstance(reply, ReplyError):
            raise PermissionError(f"the online store refuses us ({reply})")
    stream.used = False


def _tls(address: RedisAddress) -> ssl.SSLContext | None:
    if not address.tls:
        return None
    context = ssl.create_default_context(cafile=str(address.ca) if address.ca else None)
    if address.cert is not None:
        context.load_cert_chain(address.cert, address.key)
    return context
