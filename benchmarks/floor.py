"""The floor: the least that could answer. One SQLite read per entity, one ONNX run for all that wait, nothing else.

No check of the request, no window at read time (it reads whole vectors made before), no time, decision, log, metrics,
fallback, deadline or thread; the same uvicorn settings and the same loop as the model server.

    python -m benchmarks.floor DATABASE MODEL PORT
"""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import sys
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
import uvicorn
import uvloop

from tidewheel.apps.model_server.serve import listen

READ = "SELECT value FROM vectors WHERE key = ?"


class _Input(msgspec.Struct):
    name: str
    data: list[Any]


class _Body(msgspec.Struct):
    inputs: list[_Input]


class Floor:
    """ASGI application; requests of one turn of the loop are scored together."""

    def __init__(self, database: str, model: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(model, options)
        self.input, self.width = self.session.get_inputs()[0].name, self.session.get_inputs()[0].shape[1]
        self.database = sqlite3.connect(database, isolation_level=None)
        self.decode, self.waiting = msgspec.json.Decoder(_Body).decode, []  # type: ignore[var-annotated]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        given = {one.name: one.data[0] for one in self.decode((await receive())["body"]).inputs}
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((given, future))
        if len(self.waiting) == 1:
            asyncio.get_running_loop().call_soon(self.flush)
        body = b'{"outputs":[{"name":"score","data":[%f]}]}' % await future
        headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def flush(self) -> None:
        taken, self.waiting = self.waiting, []
        x = np.empty((len(taken), self.width), dtype=np.float32)
        for row, (given, _) in zip(x, taken, strict=True):
            card = self.database.execute(READ, (b"c%d" % given["customer_id"],)).fetchone()[0]
            shop = self.database.execute(READ, (b"t%d" % given["terminal_id"],)).fetchone()[0]
            row[:] = np.frombuffer(card + shop, dtype=np.float32)
            row[-4:] = given["amount"]
        for (_, future), score in zip(taken, self.session.run(None, {self.input: x})[1][:, 1].tolist(), strict=True):
            future.set_result(score)


def main(database: str, model: str, port: int) -> None:
    gc.set_threshold(50_000, 20, 100)
    config = uvicorn.Config(
        Floor(database, model), http="httptools", loop="none", lifespan="off", ws="none", log_level="warning",
        access_log=False, log_config=None, server_header=False, date_header=False, proxy_headers=False,
        timeout_keep_alive=75, backlog=2048,
    )  # fmt: skip
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(uvicorn.Server(config).serve(sockets=[listen(port)]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
