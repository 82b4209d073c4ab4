"""A connection's bounds, over real sockets: what trickles, idles, is too large or too old is closed."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable

import pytest

from tidewheel.apps.model_server.http_connection import Exchange, Header, Limits
from tidewheel.apps.model_server.http_server import HttpServer
from tidewheel.clock import SystemClock

BRIEF = {"header_s": 0.1, "body_s": 0.1, "answer_s": 0.1, "idle_s": 0.1, "sweep_s": 0.02}
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n"
Caller = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def echo(exchange: Exchange) -> None:
    """Answers with the body it got; /large with more than sockets buffer, /later after the loop has turned."""
    body = b"x" * 30_000_000 if exchange.url == b"/large" else exchange.body
    if exchange.url == b"/later":
        asyncio.get_running_loop().call_later(0.02, exchange.answer, 200, body, b"")
    else:
        exchange.answer(200, body, b"")


class Echo:
    handle = staticmethod(echo)

    @staticmethod
    def check(headers: list[Header]) -> tuple[int, bytes, bytes] | None:
        return (413, b"too large", b"") if (b"x-refuse", b"1") in headers else None


def serve(limits: Limits, story: Callable[[Callable[[], Awaitable[Caller]]], Awaitable[None]]) -> None:
    """Run ``story`` against a server with these limits; it is given a way to connect."""

    async def run() -> None:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        port = listener.getsockname()[1]
        server = HttpServer(Echo(), listener, limits, SystemClock())
        await server.start()
        await story(lambda: asyncio.open_connection("127.0.0.1", port, limit=2**26))
        await server.stop(0.0)

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


async def answers(connect: Callable[[], Awaitable[Caller]], sent: bytes, n: int) -> list[tuple[bytes, bytes]]:
    """The heads and bodies of ``n`` answers to what is sent on one connection."""
    reader, writer = await connect()
    writer.write(sent)
    told = []
    for _ in range(n):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        told.append((head, await reader.readexactly(length)))
    writer.close()
    return told


def test_answers_come_in_the_order_that_was_asked_for_however_long_each_takes() -> None:
    async def story(connect: Callable[[], Awaitable[Caller]]) -> None:
        later = b"POST /later HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n1"
        sent = later + POST + b"abcd" + later.replace(b"\r\n1", b"\r\n2") + POST + b"efgh"
        assert [body for _, body in await answers(connect, sent, 4)] == [b"1", b"abcd", b"2", b"efgh"]

    serve(Limits(), story)


def test_many_requests_ahead_are_all_answered() -> None:
    async def story(connect: Callable[[], Awaitable[Caller]]) -> None:
        sent = b"".join(
            b"POST /later HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n%04d" % number for number in range(300)
        )
        assert [int(body) for _, body in await answers(connect, sent, 300)] == list(range(300))

    serve(Limits(), story)


def test_a_chunked_body_is_put_together() -> None:
    async def story(connect: Callable[[], Awaitable[Caller]]) -> None:
        sent = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"
        assert [body for _, body in await answers(connect, sent, 1)] == [b"abcde"]

    serve(Limits(), story)


def test_a_caller_that_expects_a_word_before_its_body_gets_it() -> None:
    async def story(connect: Callable[[], Awaitable[Caller]]) -> None:
        reader, writer = await connect()
        writer.write(POST.replace(b"host", b"expect: 100-continue\r\nhost"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abcd")
        assert (await reader.readuntil(b"abcd")).startswith(b"HTTP/1.1 200")
        writer.close()

    serve(Limits(), story)


def test_a_head_request_has_the_length_and_no_body() -> None:
    async def story(connect: Callable[[], Awaitable[Caller]]) -> None:
        sent = POST.replace(b"POST", b"HEAD").replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") + b"abcd"
        answer = await answer_to(await connect(), sent)
        assert b"content-length: 4\r\n" in answer
        assert answer.endswith(b"\r\n\r\n")

    serve(Limits(), story)


def test_http_1_0_is_answered_and_closed() -> None:
    async def story(connect: Callable[[], Awaitable[Caller]]) -> None:
        answer = await answer_to(await connect(), b"GET / HTTP/1.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer

    serve(Limits(), story)


def test_a_request_refused_by_its_header_is_answered_before_its_body_comes() -> None:
    async def story(connect: Callable[[], Awaitable[Caller]]) -> None:
        answer = await answer_to(await connect(), POST.replace(b"host", b"x-refuse: 1\r\nhost"))
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"connection: close" in answer

    serve(Limits(), story)


def test_who_still_sends_what_was_refused_reads_why_before_the_connection_ends() -> None:
    async def story(connect: Callable[[], Awaitable[Caller]]) -> None:
        reader, writer = await connect()
        writer.write(POST.replace(b"host", b"x-refuse: 1\r\nhost").replace(b": 4", b": 400000"))
        for _ in range(40):  # nobody reads meanwhile
            writer.write(b"x" * 10_000)
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.read()).startswith(b"HTTP/1.1 413")
        writer.close()

    serve(Limits(), story)


def test_a_refusal_comes_behind_the_answers_that_are_owed() -> None:
    async def story(connect: Callable[[], Awaitable[Caller]]) -> None:
        later = b"POST /later HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n1"
        answer = await answer_to(await connect(), later + b"nonsense\r\n\r\n")
        assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"400"]

    serve(Limits(), story)


def test_a_server_that_stops_answers_what_it_owes_and_closes_what_idles() -> None:
    async def run() -> None:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        port = listener.getsockname()[1]
        server = HttpServer(Echo(), listener, Limits(), SystemClock())
        await server.start()
        idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", port)
        idle_writer.write(GET)
        await idle_reader.readuntil(b"\r\n\r\n")
        owed_reader, owed_writer = await asyncio.open_connection("127.0.0.1", port)
        owed_writer.write(b"POST /later HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nabcd")
        while not any(connection.owes for connection in server.connections):
            await asyncio.sleep(0)
        await server.stop(20.0)
        assert await idle_reader.read() == b""
        answer = await owed_reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_request_began_with_its_first_byte_however_late_its_body_comes() -> None:
    began: list[int] = []

    class Noting(Echo):
        @staticmethod
        def handle(exchange: Exchange) -> None:
            began.append(SystemClock().monotonic_us() - exchange.began_us)
            echo(exchange)

    async def run() -> None:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        server = HttpServer(Noting(), listener, Limits(), SystemClock())
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
        for part in (POST[:20], POST[20:], b"ab"):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(b"cd")
        await reader.readuntil(b"abcd")
        writer.close()
        await server.stop(0.0)

    asyncio.run(asyncio.wait_for(run(), 30))
    assert began[0] >= 55_000
