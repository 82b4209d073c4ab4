"""A connection's bounds, over real sockets: what trickles, idles, is too large or too old is closed."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn

from tidewheel.apps.model_server.http_connection import Limits, connection_class, sweep

BRIEF = {"header_s": 0.1, "body_s": 0.1, "answer_s": 0.1, "idle_s": 0.1, "sweep_s": 0.02}
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n"
Caller = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers with the body it got; /large with more than sockets buffer."""
    body = b"x" * 30_000_000 if scope["path"] == "/large" else b""
    message = {"more_body": True}
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
    length = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": body})


def serve(limits: Limits, story: Callable[[Callable[[], Awaitable[Caller]]], Awaitable[None]]) -> None:
    """Run ``story`` against a server with these limits; it is given a way to connect."""

    async def run() -> None:
        config = uvicorn.Config(
            echo, http=connection_class(limits), lifespan="off", ws="none", log_config=None, access_log=False
        )
        server = uvicorn.Server(config)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
            serving = asyncio.create_task(server._serve([listener]))
            while not server.started:
                await asyncio.sleep(0.001)
            sweeping = asyncio.create_task(sweep(server.server_state.connections, limits))
            await story(lambda: asyncio.open_connection("127.0.0.1", port, limit=2**26))
            server.should_exit = server.force_exit = True
            await serving
            sweeping.cancel()

    asyncio.run(asyncio.wait_for(run(), 30))


async def answer_to(caller: Caller, *sent: bytes) -> bytes:
    """Everything that comes until the server closes the connection."""
    reader, writer = caller
    try:
        for part in sent:
            writer.write(part)
            await writer.drain()
        return await reader.read()
    except ConnectionError:
        return b""


@pytest.mark.parametrize(
    ("sent", "status", "error"),
    [
        pytest.param(b"", b"408", "request: did not arrive within 0.1 s", id="that sends nothing"),
        pytest.param(b"GET / HT", b"408", "header: did not arrive within 0.1 s", id="whose header stops"),
        pytest.param(POST + b"ab", b"408", "body: did not arrive within 0.1 s", id="whose body stops"),
        pytest.param(b"\x16\x03\x01 hello", b"400", "request: not HTTP/1.1", id="that speaks another protocol"),
        pytest.param(b"GET /\x00 HTTP/1.1\r\n\r\n", b"400", "request: not HTTP/1.1", id="whose path is none"),
    ],
)
def test_a_caller_is_told_why_it_is_cut_off(sent: bytes, status: bytes, error: str) -> None:
    async def story(connect: Callable[[], Awaitable[Caller]]) -> None:
        head, _, body = (await answer_to(await connect(), sent)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 " + status)
        assert b"connection: close" in head
        assert json.loads(body) == {"error": error}

    serve(Limits(**BRIEF), story)


def test_a_header_that_trickles_is_not_kept_open_by_its_bytes() -> None:
    async def story(connect: Callable[[], Awaitable[Caller]]) -> None:
        reader, writer = await connect()
        ended = asyncio.create_task(reader.read())
        writer.write(b"GET / HTTP/1.1\r\n")
        while not ended.done():  # a byte per turn, for as long as the server takes them
            writer.write(b"x")
            await asyncio.sleep(0.005)
        # A byte on its way when the server closed resets the connection, and its last words are lost.
        assert ended.exception() is not None or b" 408 " in ended.result()

    serve(Limits(**BRIEF), story)


def test_an_idle_connection_is_closed_without_a_word() -> None:
    async def story(connect: Callable[[], Awaitable[Caller]]) -> None:
        answer = await answer_to(await connect(), GET)
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.count(b"HTTP/1.1") == 1

    serve(Limits(**BRIEF), story)


def test_requests_in_time_are_answered_on_one_connection_and_together() -> None:
    async def story(connect: Callable[[], Awaitable[Caller]]) -> None:
        reader, writer = await connect()
        for _ in range(3):
            writer.write(POST + b"abcd" + GET)
            assert (await reader.readuntil(b"abcd")).startswith(b"HTTP/1.1 200")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()

    serve(Limits(), story)


def test_an_endless_header_is_cut_off_by_its_size() -> None:
    async def story(connect: Callable[[], Awaitable[Caller]]) -> None:
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\n")
        await writer.drain()
        answered = asyncio.create_task(reader.read(1000))
        try:
            while not answered.done():
                writer.write(b"x-more: " + b"y" * 8000 + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        assert b" 431 " in await answered

    serve(Limits(), story)


def test_a_caller_that_does_not_read_its_answer_is_dropped() -> None:
    async def story(connect: Callable[[], Awaitable[Caller]]) -> None:
        reader, writer = await connect()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        gone = await connect()
        await answer_to(gone, GET)  # it idles until the sweep closes it: the other was looked at meanwhile
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await answer_to((reader, writer))) < 30_000_000

    serve(Limits(**BRIEF), story)


def test_an_old_connection_is_closed_after_an_answer() -> None:
    async def story(connect: Callable[[], Awaitable[Caller]]) -> None:
        answer = await answer_to(await connect(), GET)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer

    serve(Limits(age_s=0.0), story)


def test_more_connections_than_allowed_are_turned_away() -> None:
    async def story(connect: Callable[[], Awaitable[Caller]]) -> None:
        kept = await connect()
        kept[1].write(GET)
        await kept[0].readuntil(b"\r\n\r\n")
        assert await answer_to(await connect(), GET) == b""
        kept[1].write(GET)
        assert (await kept[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        kept[1].close()

    serve(Limits(connections=1), story)
