"""The floor: a bare ASGI app that answers from the published features in Redis. One HMGET per entity and view for all
that wait, one ONNX run, and nothing else: no check, time, window, decision, log, metrics, fallback or deadline.

    python -m benchmarks.floor PORT REDIS_PORT MODEL VIEWS

VIEWS is JSON: [[key column, project, [field, ...]], ...], fields in hexadecimal.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from typing import Any

import hiredis
import msgspec
import numpy as np
import onnxruntime as ort
import uvicorn
import uvloop

NAN = struct.pack("<d", float("nan"))


class _Input(msgspec.Struct):
    name: str
    data: list[Any]


class _Body(msgspec.Struct):
    inputs: list[_Input]


class Floor(asyncio.Protocol):
    """ASGI application and Redis connection in one; requests of one turn of the loop are read and scored together."""

    def __init__(self, redis_port: int, model: str, views: list[tuple[str, str, list[str]]]) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(model, options)
        self.name, self.redis_port = self.session.get_inputs()[0].name, redis_port
        self.views = [
            (key, entity_head(key), project.encode(), [bytes.fromhex(f) for f in fields])
            for key, project, fields in views
        ]
        self.decode, self.waiting, self.flying = msgspec.json.Decoder(_Body).decode, [], []  # type: ignore[var-annotated]
        self.reader, self.replies, self.transport = hiredis.Reader(), [], None  # type: ignore[var-annotated]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        given = {one.name: one.data[0] for one in self.decode((await receive())["body"]).inputs}
        loop = asyncio.get_running_loop()
        if self.transport is None:
            self.transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", self.redis_port)
        future = loop.create_future()
        self.waiting.append((given, future))
        if len(self.waiting) == 1 and not self.flying:
            loop.call_soon(self.flush)
        body = b'{"outputs":[{"name":"score","data":[%f]}]}' % await future
        headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def flush(self) -> None:
        self.flying, self.waiting = self.waiting, []
        self.transport.write(b"".join([
            hiredis.pack_command((b"HMGET", head + struct.pack("<q", given[key]) + project, *fields))
            for given, _ in self.flying for key, head, project, fields in self.views
        ]))  # fmt: skip

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        while (reply := self.reader.gets()) is not False:
            self.replies.append(reply)
        if len(self.replies) < len(self.flying) * len(self.views):
            return
        raw = b"".join([value[1:9] if value and len(value) == 9 else NAN for reply in self.replies for value in reply])
        x = np.frombuffer(raw, dtype="<f8").reshape(len(self.flying), -1).astype(np.float32)
        for (_, future), score in zip(
            self.flying, self.session.run(None, {self.name: x})[1][:, 1].tolist(), strict=True
        ):
            future.set_result(score)
        self.flying, self.replies = [], []
        if self.waiting:
            self.flush()


def entity_head(key: str) -> bytes:
    """Feast's entity key in front of an int64 value."""
    name = key.encode()
    return struct.pack("<III", 1, 2, len(name)) + name + struct.pack("<II", 4, 8)


def main(port: int, redis_port: int, model: str, views: str) -> None:
    config = uvicorn.Config(
        Floor(redis_port, model, json.loads(views)), host="127.0.0.1", port=port, http="httptools", loop="none",
        lifespan="off", ws="none", log_level="warning", access_log=False,
    )  # fmt: skip
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
