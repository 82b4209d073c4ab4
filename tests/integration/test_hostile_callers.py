"""Hostile callers over real sockets: whatever they send, nobody gets a 5xx and everybody else is answered in time.

TIDEWHEEL_FUZZ is the number of requests, 5000 where it is not set; TIDEWHEEL_FUZZ_SEED picks others.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest

from servers.mlflow import free_port
from servers.model_server import Rig, bundles, rig_at
from tidewheel.serving.proto import open_inference_pb2 as pb

__all__ = ["bundles"]  # a fixture
pytestmark = pytest.mark.integration

N_REQUESTS = int(os.environ.get("TIDEWHEEL_FUZZ", "5000"))
SEED = int(os.environ.get("TIDEWHEEL_FUZZ_SEED", "1"))
CALLERS = 16
HANG_S = 5.0  # an answer that takes longer is a hang
ANSWERS = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "CANCELLED"}
PROBE = {"inputs": [{"name": "customer_id", "shape": [1], "datatype": "INT64", "data": [7]}]}
VALUES = [None, True, "seven", "", "\ud800", -1, 0, 2**31, 2**63, 2**70, 1e308, 1e-320, [], [[]], {}, "x" * 20_000]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory, bundles: tuple[Path, dict[str, str]]) -> Iterator[Rig]:
    with rig_at(tmp_path_factory.mktemp("home"), bundles) as rig:
        rig.deploy({"1": 1.0}, shadow=("2",))
        rig.grpc_port = free_port()
        rig.start(0, "--grpc-port", rig.grpc_port)
        yield rig


class Mutator:
    """Requests that once were valid."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def http(self) -> bytes:
        """A whole request, its length told truly more often than not."""
        pick = self._random
        kind = pick.choice(["v2", "v2", "v1", "binary", "garbage"])
        if kind == "garbage":
            return pick.randbytes(pick.randint(1, 300)) + b"\r\n\r\n"
        headers = {"host": "x", "connection": "close"}
        path = "/v1/models/tiny:predict" if kind == "v1" else "/v2/models/tiny/infer"
        body = self._json(kind)
        if kind == "binary":
            body, headers["inference-header-content-length"] = self._binary()
        if pick.random() < 0.5:
            body = self.bytes(body)
        length = len(body) if pick.random() < 0.95 else pick.choice([-1, 10**12, "two", ""])
        headers["content-length"] = str(length)
        if pick.random() < 0.1:
            name, value = pick.choice(
                [
                    ("x-request-timeout-ms", "-1"), ("content-encoding", "gzip"), ("expect", "100-continue"),
                    ("transfer-encoding", "chunked"), ("upgrade", "websocket"), ("x-" + "y" * 9000, "z" * 9000),
                    ("inference-header-content-length", "9" * 40), ("x-request-timeout-ms", "1"),
                ]
            )  # fmt: skip
            headers[name] = value
        if pick.random() < 0.05:
            path = pick.choice(
                ["/%ff", "*", "/v2/models/tiny/versions/%00/infer", "//", "/v2/" + "a/" * 3000, "http://"]
            )
        head = f"{pick.choice(['POST'] * 9 + ['PATCH'])} {path} HTTP/1.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        sent = head.encode() + b"\r\n" + body
        return self.bytes(sent) if pick.random() < 0.05 else sent

    def _json(self, kind: str) -> bytes:
        pick = self._random
        if pick.random() < 0.03:
            return b'{"inputs":' + pick.choice([b"[", b'{"a":']) * 60_000
        if pick.random() < 0.03:
            return b'{"instances": [{"customer_id": 7, "amount": %b}]}' % pick.choice([b"NaN", b"-Infinity", b"1e999"])
        names = ["customer_id", "amount", "channel", "paid_at", "payment_id", "features", "large", "n_1d"]
        if kind == "v1":
            row: Any = {pick.choice(names): pick.choice(VALUES) for _ in range(3)} | {"customer_id": 7}
            rows = [pick.choice([row, [1, 2, 0.5], pick.choice(VALUES)]) for _ in range(pick.randint(1, 3))]
            return json.dumps(pick.choice([{"instances": rows}, {"inputs": row}])).encode()
        inputs = list(PROBE["inputs"])
        for _ in range(pick.randint(0, 3)):
            data = [pick.choice([1, 2.5, "2020-09-13T12:26:40Z", *VALUES]) for _ in range(pick.randint(1, 2))]
            shape = pick.choice([[len(data)], [1], [1, 3], [2**40, 2**40], [-1], []])
            datatype = pick.choice(["INT64", "FP64", "FP32", "BYTES", "BOOL", "FP8"])
            inputs.append({"name": pick.choice(names), "shape": shape, "datatype": datatype, "data": data})
        return json.dumps({"inputs": inputs, **pick.choice([{}, {}, {"outputs": [{"name": "score"}]}])}).encode()

    def _binary(self) -> tuple[bytes, str]:
        pick = self._random
        raw = [struct.pack("<q", 7), struct.pack("<d", pick.choice([1.5, float("nan"), float("inf")])), b"\3\0\0\0web"]
        kinds = [("customer_id", "INT64"), ("amount", "FP64"), ("channel", "BYTES")]
        sizes = [len(one) + (pick.choice([-1, 1, 2**40, -(2**40)]) if pick.random() < 0.1 else 0) for one in raw]
        inputs = [
            {"name": name, "shape": [1], "datatype": kind, "parameters": {"binary_data_size": size}}
            for (name, kind), size in zip(kinds, sizes, strict=True)
        ]
        head = json.dumps({"inputs": inputs}).encode()
        length = len(head) + (pick.choice([-3, 1, 10**6]) if pick.random() < 0.1 else 0)
        return head + b"".join(raw), str(length)

    def grpc(self) -> bytes:
        pick = self._random
        asked = pb.ModelInferRequest(model_name="tiny")
        ids = asked.inputs.add(name="customer_id", datatype="INT64", shape=[pick.choice([1, 1, 2, -1, 2**62])])
        ids.contents.int64_contents.append(7)
        amount = asked.inputs.add(name=pick.choice(["amount", "features"]), datatype="FP64", shape=[1])
        amount.contents.fp64_contents.extend(pick.choice([[1.5], [float("nan")], [float("inf")], []]))
        if pick.random() < 0.3:
            asked.raw_input_contents.extend(pick.randbytes(8) for _ in range(pick.randint(1, 3)))
        data = asked.SerializeToString()
        return self.bytes(data) if pick.random() < 0.7 else data

    def bytes(self, data: bytes) -> bytes:
        """A few bytes flipped, cut, doubled or put in."""
        pick, made = self._random, bytearray(data)
        for _ in range(pick.randint(1, 3)):
            at = pick.randrange(len(made)) if made else 0
            match pick.randint(0, 3):
                case 0 if made:
                    made[at] = pick.randrange(256)
                case 1:
                    del made[at : at + pick.randint(1, 20)]
                case 2:
                    made[at:at] = made[at : at + 20]
                case _:
                    made[at:at] = pick.randbytes(pick.randint(1, 5))
        return bytes(made)


async def send_http(port: int, sent: bytes) -> str:
    """The status of the first answer, or how the connection ended. A request that is not whole is given up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        line = await asyncio.wait_for(reader.readline(), 0.5)
        while b" 100 " in line or line == b"\r\n":
            line = await asyncio.wait_for(reader.readline(), 0.5)
        return line.split(b" ")[1].decode() if line else "closed"
    except (TimeoutError, ConnectionError):
        return "given up"
    finally:
        writer.transport.abort()


async def probe(port: int, stop: asyncio.Event) -> list[float]:
    """Latencies in ms of valid requests, one after the other on one connection; all must be answered with 200."""
    body = json.dumps(PROBE).encode()
    sent = b"POST /v2/models/tiny/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    took = []
    while not stop.is_set():
        began = time.perf_counter()
        writer.write(sent)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HANG_S)
        assert head.startswith(b"HTTP/1.1 200"), head
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
        took.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.01)
    writer.close()
    return took


async def attack(rig: Rig, n: int, one: Callable[[], Awaitable[str]]) -> tuple[Counter[str], list[float]]:
    """``n`` times ``one``, many at a time, with a probe beside them."""
    stop, seen, left = asyncio.Event(), Counter[str](), iter(range(n))
    probing = asyncio.create_task(probe(rig.port, stop))

    async def caller() -> None:
        for _ in left:
            seen[await one()] += 1

    try:
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
    finally:
        stop.set()
    return seen, await probing


def assert_unharmed(rig: Rig, took_ms: list[float]) -> None:
    assert took_ms
    assert np.percentile(took_ms, 99) < 1000, "a probe waited"  # the bound is for a machine that others use, too
    metrics = rig.get("/metrics").decode().splitlines()
    told = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in metrics if line[0] != "#"}
    assert [line for line in told if 'code="5' in line] == []
    assert [value for line, value in told.items() if "internal_errors" in line] == [0.0]
    assert rig.servers[0].poll() is None


def rss_bytes(rig: Rig) -> int:
    status = Path(f"/proc/{rig.servers[0].pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024


def test_fuzzed_http_requests_get_no_5xx_and_hold_nobody_up(attacked: Rig) -> None:
    mutator = Mutator(SEED)
    before = rss_bytes(attacked)
    seen, took_ms = asyncio.run(attack(attacked, N_REQUESTS * 4 // 5, lambda: send_http(attacked.port, mutator.http())))
    assert [status for status in seen if status.startswith("5")] == []
    assert seen["200"] and seen["400"], seen
    assert seen["given up"] + seen["closed"] < sum(seen.values()) / 4, seen
    assert_unharmed(attacked, took_ms)
    assert rss_bytes(attacked) - before < 128 * 2**20


def test_fuzzed_grpc_messages_get_no_internal_error(attacked: Rig) -> None:
    mutator = Mutator(SEED)

    async def story() -> tuple[Counter[str], list[float]]:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{attacked.grpc_port}") as channel:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

            async def one() -> str:
                try:
                    await infer(mutator.grpc(), timeout=HANG_S)
                except grpc.aio.AioRpcError as error:
                    return str(error.code().name)
                return "OK"

            return await attack(attacked, N_REQUESTS // 5, one)

    seen, took_ms = asyncio.run(story())
    assert set(seen) <= ANSWERS, seen
    assert seen["OK"] and seen["INVALID_ARGUMENT"], seen
    assert_unharmed(attacked, took_ms)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header(name: bytes, value: bytes) -> bytes:
    """A literal of HPACK."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def test_streams_that_are_opened_and_reset_at_once_hold_nobody_up(attacked: Rig) -> None:
    opened = b"".join(
        header(name, value)
        for name, value in (
            (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/inference.GRPCInferenceService/ModelInfer"),
            (b":authority", b"x"), (b"te", b"trailers"), (b"content-type", b"application/grpc"),
        )
    )  # fmt: skip
    start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")

    async def one() -> str:
        _, writer = await asyncio.open_connection("127.0.0.1", attacked.grpc_port)
        try:
            writer.write(start)
            for stream in range(1, 400, 2):
                writer.write(frame(1, 4, stream, opened) + frame(3, 0, stream, struct.pack(">I", 8)))
            await writer.drain()
        except ConnectionError:
            return "closed"
        finally:
            writer.transport.abort()
        return "sent"

    _, took_ms = asyncio.run(attack(attacked, 100, one))
    assert_unharmed(attacked, took_ms)


def test_thousands_of_idle_and_stuck_connections_hold_nobody_up(attacked: Rig) -> None:
    most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n = min(5000, hard - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, n + 500), hard))
    before = rss_bytes(attacked)

    async def story() -> list[float]:
        idle: list[asyncio.StreamWriter] = []
        while len(idle) < n:
            some = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", attacked.port) for _ in range(100)))
            idle += [writer for _, writer in some]
        for writer in idle[::2]:
            writer.write(b"POST /v2/models/tiny/infer HTTP/1.1\r\ncontent-le")
        stop = asyncio.Event()
        probing = asyncio.create_task(probe(attacked.port, stop))
        for _ in range(300):
            assert await send_http(attacked.port, b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n") == "200"
        stop.set()
        took_ms = await probing
        for writer in idle:
            writer.transport.abort()
        return took_ms

    try:
        took_ms = asyncio.run(story())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    print(f"{n} connections: p99 {np.percentile(took_ms, 99):.1f} ms, {(rss_bytes(attacked) - before) / n:.0f} B each")
    assert_unharmed(attacked, took_ms)
    assert rss_bytes(attacked) - before < n * 32 * 1024


def test_callers_that_send_a_byte_now_and_then_hold_nobody_up(attacked: Rig) -> None:
    request = b"POST /v2/models/tiny/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 200\r\n\r\n" + b" " * 200

    async def story() -> list[float]:
        callers = [await asyncio.open_connection("127.0.0.1", attacked.port) for _ in range(200)]
        stop = asyncio.Event()
        probing = asyncio.create_task(probe(attacked.port, stop))
        for at in range(60):
            for _, writer in callers:
                writer.write(request[at : at + 1])
            await asyncio.sleep(0.01)
        stop.set()
        for _, writer in callers:
            writer.transport.abort()
        return await probing

    assert_unharmed(attacked, asyncio.run(story()))


@pytest.mark.parametrize("chunked", [False, True], ids=["that is announced", "in chunks without an end"])
def test_a_gigabyte_is_refused_before_it_is_taken_in(attacked: Rig, chunked: bool) -> None:
    before = rss_bytes(attacked)
    length = b"transfer-encoding: chunked" if chunked else b"content-length: 1073741824"
    head = b"POST /v2/models/tiny/infer HTTP/1.1\r\nhost: x\r\n" + length + b"\r\n\r\n"
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n" if chunked else b" " * 65536

    async def one() -> tuple[bytes, int]:
        reader, writer = await asyncio.open_connection("127.0.0.1", attacked.port)
        answered, sent = asyncio.create_task(reader.readline()), 0
        writer.write(head)
        try:
            while not answered.done() and sent < 2**30:
                writer.write(piece)
                sent += len(piece)
                await writer.drain()
                await asyncio.sleep(0)
            return await answered, sent
        except ConnectionError:
            return b"" if not answered.done() or answered.exception() else answered.result(), sent
        finally:
            answered.cancel()
            writer.transport.abort()

    async def story() -> tuple[list[tuple[bytes, int]], list[float]]:
        stop = asyncio.Event()
        probing = asyncio.create_task(probe(attacked.port, stop))
        told = await asyncio.gather(*(one() for _ in range(20)))
        stop.set()
        return told, await probing

    told, took_ms = asyncio.run(story())
    # Bytes on their way when the server closed reset the connection, and its last words may be lost.
    assert {line.split(b" ")[1] for line, _ in told if line} <= {b"413"}
    assert any(line for line, _ in told)
    assert max(sent for _, sent in told) < 64 * 2**20, "it was cut off"
    assert rss_bytes(attacked) - before < 64 * 2**20
    assert_unharmed(attacked, took_ms)
