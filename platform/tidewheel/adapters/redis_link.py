"""One Redis node: pooled connections that send many commands at once and wait no longer than they are told.

redis-py costs as much per read as the network does, so the hot path packs and parses by hiredis alone. Every command
that goes through here may be sent twice without harm.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import hiredis

from tidewheel.adapters.redis_url import RedisAddress
from tidewheel.errors import Unavailable

CONNECT_TIMEOUT_S = 1.0
AT_ONCE = 512  # commands on their way before their replies are read
MAX_IDLE = 16

Command = Sequence[bytes]
Node = tuple[str, int]  # host and port
ReplyError = hiredis.ReplyError

_MORE = object()


class RedisLink:
    """One connection; not shared between threads at any moment."""

    def __init__(self, address: RedisAddress, node: Node, password: str | None) -> None:
        self._socket = _connected(address, node)
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._buffer = bytearray(1 << 16)
        self.used = False
        hello: list[Command] = []
        if address.user:
            hello.append((b"AUTH", address.user.encode(), (password or "").encode()))
        elif password is not None:
            hello.append((b"AUTH", password.encode()))
        if address.db:
            hello.append((b"SELECT", str(address.db).encode()))
        try:
            for reply in self.run(hello, CONNECT_TIMEOUT_S) if hello else ():
                if isinstance(reply, ReplyError):
                    raise Unavailable(f"{address}: the online store refuses us ({reply})")
        except BaseException:
            self.close()
            raise

    def run(self, commands: Sequence[Command], timeout_s: float) -> list[Any]:
        """A reply per command; each AT_ONCE of them within ``timeout_s``. Raises OSError, TimeoutError among them."""
        pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]  # its stub wants a tuple
        if len(commands) <= AT_ONCE:
            self._send(b"".join(map(pack, commands)), timeout_s)
            return self._receive(len(commands), timeout_s)
        replies: list[Any] = []
        waiting = 0
        for start in range(0, len(commands), AT_ONCE):
            some = commands[start : start + AT_ONCE]
            self._send(b"".join(map(pack, some)), timeout_s)
            # One lot is answered while the next is packed.
            if waiting:
                replies += self._receive(waiting, timeout_s)
            waiting = len(some)
        return replies + self._receive(waiting, timeout_s)

    def _send(self, data: bytes, timeout_s: float) -> None:
        self._socket.settimeout(timeout_s)
        self._socket.sendall(data)

    def _receive(self, n: int, timeout_s: float) -> list[Any]:
        deadline = time.monotonic() + timeout_s
        replies: list[Any] = []
        while len(replies) < n:
            reply = self._reader.gets()
            if reply is not _MORE:
                replies.append(reply)
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no answer within {timeout_s:g} s")
            self._socket.settimeout(left)
            size = self._socket.recv_into(self._buffer)
            if not size:
                raise ConnectionResetError("the server closed the connection")
            self._reader.feed(self._buffer, 0, size)  # type: ignore[arg-type]  # any buffer will do
        return replies

    def close(self) -> None:
        self._socket.close()


class RedisNode:
    """Connections to one server, kept for whoever asks next. Safe to share between threads."""

    def __init__(self, address: RedisAddress, node: Node, password: str | None) -> None:
        self._address, self.node, self._password = address, node, password
        self._idle: deque[RedisLink] = deque()

    def run(self, commands: Sequence[Command], timeout_s: float) -> list[Any]:
        """A reply per command, errors among them as values. Raises Unavailable."""
        try:
            link = self._idle.pop()
        except IndexError:
            link = self._new()
        try:
            return self._run(link, commands, timeout_s)
        except TimeoutError as error:
            raise self._silent(timeout_s) from error
        except (OSError, hiredis.HiredisError) as error:
            if not link.used:
                raise self._lost(error) from error
            # The server closed it while it lay idle, and the others with it.
            self.close()
        try:
            return self._run(self._new(), commands, timeout_s)
        except TimeoutError as error:
            raise self._silent(timeout_s) from error
        except (OSError, hiredis.HiredisError) as error:
            raise self._lost(error) from error

    def _run(self, link: RedisLink, commands: Sequence[Command], timeout_s: float) -> list[Any]:
        try:
            replies = link.run(commands, timeout_s)
        except BaseException:
            link.close()  # replies may be on their way that belong to nobody
            raise
        link.used = True
        if len(self._idle) < MAX_IDLE:
            self._idle.append(link)
        else:
            link.close()
        return replies

    def _new(self) -> RedisLink:
        try:
            return RedisLink(self._address, self.node, self._password)
        except (OSError, hiredis.HiredisError) as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> Unavailable:
        return Unavailable(f"{self._where()}: the online store does not answer ({error})")

    def _silent(self, timeout_s: float) -> Unavailable:
        return Unavailable(f"{self._where()}: the online store does not answer (nothing within {timeout_s:g} s)")

    def _where(self) -> str:
        return f"{self._address}" + (f" ({self.node[0]}:{self.node[1]})" if self._address.cluster else "")

    def close(self) -> None:
        for link in _taken(self._idle):
            link.close()


def _taken(links: deque[RedisLink]) -> Iterator[RedisLink]:
    while True:
        try:
            yield links.pop()
        except IndexError:
            return


def _connected(address: RedisAddress, node: Node) -> socket.socket:
    plain = socket.create_connection(node, timeout=CONNECT_TIMEOUT_S)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if not address.tls:
            return plain
        context = ssl.create_default_context(cafile=str(address.ca) if address.ca else None)
        if address.cert is not None:
            context.load_cert_chain(address.cert, address.key)
        return context.wrap_socket(plain, server_hostname=node[0])
    except BaseException:
        plain.close()
        raise
