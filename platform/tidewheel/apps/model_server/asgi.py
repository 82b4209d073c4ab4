"""The HTTP face of the model server: Open Inference Protocol v2 over raw ASGI, health and metrics.

Every answer is JSON (metrics apart); every fault has ``{"error": ...}`` and says what is allowed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import asdict
from typing import Any

from tidewheel import __version__
from tidewheel.apps.model_server.versions import Versions
from tidewheel.clock import Clock
from tidewheel.errors import NotFound, TidewheelError, Unavailable
from tidewheel.serving import oip
from tidewheel.serving.coalescer import Coalescer
from tidewheel.serving.metrics import ServingMetrics
from tidewheel.serving.request import BadRequest, Overloaded, TooLarge
from tidewheel.serving.snapshot import Snapshot

MAX_BODY_BYTES = 1 << 20
BODY_TIMEOUT_S = 10.0
JSON = (b"content-type", b"application/json")
CLOSE = (b"connection", b"close")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]


class _Answer(Exception):
    """An answer that is no prediction."""

    def __init__(self, status: int, body: bytes, *headers: Header) -> None:
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers


class _CallerLeft(Exception):
    """The connection ended before the request did."""


class ModelServerApp:
    """The ASGI application of one project's server."""

    def __init__(
        self,
        project: str,
        versions: Versions,
        coalescer: Coalescer,
        metrics: ServingMetrics,
        gauges: Callable[[], dict[str, float]],
        clock: Clock,
    ) -> None:
        self._project, self._versions, self._coalescer = project, versions, coalescer
        self._metrics, self._gauges, self._clock = metrics, gauges, clock
        self._infer_path = f"/v2/models/{project}/infer"
        self._prefix = f"/v2/models/{project}"
        self._ids = itertools.count()
        self._id_prefix = os.urandom(6).hex()
        self.draining = False

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        arrived_us = self._clock.monotonic_us()
        headers: tuple[Header, ...] = ()
        try:
            if scope["path"] == self._infer_path:
                body = await self._infer(scope, receive, arrived_us, None)
                status = 200
            else:
                status, body, headers = await self._other(scope, receive, arrived_us)
        except _Answer as answer:
            status, body, headers = answer.status, answer.body, answer.headers
        except _CallerLeft:
            return
        except TidewheelError as error:
            status, body, headers = _failure(error)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # nothing a caller sends may end in a bare 500 or a traceback
            self._metrics.internal_error(error)
            status, body = 503, oip.encode_error("the server could not answer; its log says why")
        self._metrics.response(status)
        if self.draining:
            headers = (*headers, CLOSE)
        length = (b"content-length", str(len(body)).encode())
        kind = () if any(name == b"content-type" for name, _ in headers) else (JSON,)
        await send({"type": "http.response.start", "status": status, "headers": [length, *kind, *headers]})
        await send({"type": "http.response.body", "body": body})

    async def _infer(
        self, scope: MutableMapping[str, Any], receive: Receive, arrived_us: int, pinned: str | None
    ) -> bytes:
        if scope["method"] != "POST":
            raise _Answer(405, oip.encode_error("infer: use POST"), (b"allow", b"POST"))
        data = await _read_body(scope, receive)
        snapshot = self._serving()
        if pinned is not None and pinned not in snapshot.versions:
            raise NotFound(f"version {pinned!r} is not loaded; loaded are {', '.join(snapshot.versions)}")
        request = oip.decode_request(
            data,
            snapshot.columns,
            new_id=f"{self._id_prefix}-{next(self._ids):x}",
            now_us=self._clock.now_us(),
            arrived_us=arrived_us,
            pinned=pinned,
        )
        reply = await self._coalescer.submit(request, snapshot)
        return oip.encode_reply(self._project, request.request_id, reply)

    def _serving(self) -> Snapshot:
        snapshot = self._versions.snapshot
        if snapshot is None:
            raise Unavailable(f"{self._project}: no version serves yet; ask {self._prefix} for why")
        return snapshot

    async def _other(
        self, scope: MutableMapping[str, Any], receive: Receive, arrived_us: int
    ) -> tuple[int, bytes, tuple[Header, ...]]:
        path: str = scope["path"]
        parts = path.strip("/").split("/")
        if path.startswith(f"{self._prefix}/versions/") and len(parts) == 6 and parts[5] == "infer":
            return 200, await self._infer(scope, receive, arrived_us, parts[4]), ()
        if scope["method"] not in ("GET", "HEAD"):
            raise _Answer(404, oip.encode_error(f"{scope['method']} {path[:100]}: no such route"))
        if path == "/metrics":
            text = self._metrics.text(self._gauges())
            return 200, text.encode(), ((b"content-type", b"text/plain; version=0.0.4"),)
        return self._told(path, parts)

    def _told(self, path: str, parts: list[str]) -> tuple[int, bytes, tuple[Header, ...]]:
        snapshot = self._versions.snapshot
        ready = snapshot is not None and not self.draining
        if path == "/v2/health/live":
            return 200, oip.encode_json({"live": True}), ()
        if path == "/v2/health/ready":
            return (200 if ready else 503), oip.encode_json({"ready": ready}), ()
        if path == "/v2":
            return 200, oip.encode_json({"name": "tidewheel", "version": __version__, "extensions": []}), ()
        if parts[:2] != ["v2", "models"] or len(parts) < 3 or parts[2] != self._project:
            raise NotFound(f"{path[:100]}: no such route or model; this server has {self._prefix}")
        rest = parts[3:]
        version = rest[1] if rest[:1] == ["versions"] and len(rest) > 1 else None
        tail = rest[2:] if version is not None else rest
        statuses = self._versions.statuses()
        if version is not None and version not in statuses:
            raise NotFound(f"version {version!r} is not loaded; loaded are {', '.join(statuses) or 'none'}")
        if tail == ["ready"]:
            able = ready if version is None else statuses[version].state == "ready"
            return (200 if able else 503), oip.encode_json({"name": self._project, "ready": able}), ()
        if tail:
            raise NotFound(f"{path[:100]}: no such route; allowed are infer, ready or nothing behind the model")
        told: dict[str, Any] = {"name": self._project, "versions": list(statuses), "platform": "tidewheel"}
        if snapshot is not None:
            told = oip.metadata(self._project, snapshot.columns, list(statuses))
        document = snapshot.document if snapshot else None
        told["parameters"] = {
            "generation": document.generation if document else -1,
            "champion": document.champion if document else None,
            "weights": dict(document.weights) if document else {},
            "shadow": list(document.shadow) if document else [],
            "states": {name: asdict(state) for name, state in statuses.items()},
        }
        return 200, oip.encode_json(told), ()


async def _read_body(scope: MutableMapping[str, Any], receive: Receive) -> bytes:
    """The whole body, refused before it is buffered where it says or proves to be too long."""
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or int(value) > MAX_BODY_BYTES):
            raise TooLarge(f"body: at most {MAX_BODY_BYTES} bytes (got {value.decode('latin-1')[:20]})")
        if name == b"content-encoding" and value not in (b"", b"identity"):
            raise BadRequest(f"content-encoding: not supported (got {value.decode('latin-1')[:20]!r}); send plain JSON")
    message = await receive()
    data: bytes = message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise _CallerLeft
    if not message.get("more_body", False):
        return data
    parts, size = [data], len(data)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while message.get("more_body", False):
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _CallerLeft
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > MAX_BODY_BYTES:
                    raise TooLarge(f"body: at most {MAX_BODY_BYTES} bytes")
    except TimeoutError:
        error = f"body: did not arrive within {BODY_TIMEOUT_S:g} s"
        raise _Answer(408, oip.encode_error(error), CLOSE) from None
    return b"".join(parts)


def _failure(error: TidewheelError) -> tuple[int, bytes, tuple[Header, ...]]:
    body = oip.encode_error(str(error))
    if isinstance(error, BadRequest):
        return 400, body, ()
    if isinstance(error, NotFound):
        return 404, body, ()
    if isinstance(error, TooLarge):
        return 413, body, (CLOSE,)  # the rest of the body is not read
    retry = error.retry_after_s if isinstance(error, Overloaded) else 1
    return 503, body, ((b"retry-after", str(retry).encode()),)
