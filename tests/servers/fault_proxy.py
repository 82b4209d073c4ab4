"""Stands between a client and a server and does to their bytes what networks and dying servers do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time at all: close sends RST


@dataclass
class Fault:
    """``delay_ms`` in each direction; ``bytes_per_s`` of answers; ``silent`` swallows answers, ``deaf`` requests, too;
    ``reset`` ends connections, old and new, by RST."""

    delay_ms: float = 0.0
    bytes_per_s: int = 0
    silent: bool = False
    deaf: bool = False
    reset: bool = False


class FaultProxy:
    """A listener in front of ``target``; ``accepted`` counts connections, ``asked`` the writes of clients."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._fault, self._changed = Fault(), asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.port = self.accepted = self.asked = 0

    def set(self, **fault: object) -> None:
        """From now on; connections that are open meet it, too. Without arguments all is well again."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._set(Fault(**fault)), self._loop).result(10)  # type: ignore[arg-type]

    async def _set(self, fault: Fault) -> None:
        self._fault, changed, self._changed = fault, self._changed, asyncio.Event()
        changed.set()
        if fault.reset:
            for writer in tuple(self._writers):
                _reset(writer)

    async def run(self, ready: threading.Event, end: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await end.wait()
        server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._fault.reset:
            _reset(writer)
            return
        try:
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            _reset(writer)
            return
        both = {writer, ours}
        self._writers |= both
        try:
            pumps = [asyncio.create_task(self._pump(*ends)) for ends in ((reader, ours, False), (theirs, writer, True))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
        finally:
            self._writers -= both
            for one in both:
                one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                self.asked += not answers
                while self._fault.deaf or (answers and self._fault.silent):
                    await self._changed.wait()
                if self._fault.delay_ms:
                    await asyncio.sleep(self._fault.delay_ms / 1000)
                rate = self._fault.bytes_per_s if answers else 0
                for at in range(0, len(data), 1 if rate else len(data)):
                    writer.write(data[at : at + (1 if rate else len(data))])
                    await writer.drain()
                    if rate:
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(self._changed.wait(), 1 / rate)
                        rate = self._fault.bytes_per_s


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


@contextmanager
def fault_proxy(target: int) -> Iterator[FaultProxy]:
    """A proxy in a thread of its own."""
    ready, proxies = threading.Event(), list[FaultProxy]()
    ends: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        proxies.append(FaultProxy(target))
        ends.append((asyncio.get_running_loop(), asyncio.Event()))
        await proxies[0].run(ready, ends[0][1])

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield proxies[0]
    finally:
        loop, end = ends[0]
        loop.call_soon_threadsafe(end.set)
        thread.join(10)
