"""The HTTP face of the model server: Open Inference Protocol v2, V1, health and metrics over raw ASGI.

Every answer is JSON (metrics apart); every fault has ``{"error": ...}`` and says what is allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tidewheel import __version__
from tidewheel.apps.model_server.endpoint import MAX_BODY_BYTES, OUR_FAULT, Endpoint, fault_of, timeout_us_of
from tidewheel.apps.model_server.routes import OPEN_TO_ALL, NotAllowed, Route, route_of
from tidewheel.errors import TidewheelError
from tidewheel.serving.protocols import oip, v1
from tidewheel.serving.request import BadRequest, TooLarge

JSON = (b"content-type", b"application/json")
BYTES = (b"content-type", b"application/octet-stream")
TEXT = (b"content-type", b"text/plain; version=0.0.4")
CLOSE = (b"connection", b"close")
JSON_LENGTH = b"inference-header-content-length"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]
Answer = tuple[int, bytes, tuple[Header, ...]]

_HEEDED = frozenset(
    {b"content-length", b"content-encoding", b"transfer-encoding", JSON_LENGTH, b"x-request-timeout-ms"}
)


class _CallerLeft(Exception):
    """The connection ended before the request did."""


class ModelServerApp:
    """The ASGI application of one project's server."""

    def __init__(self, endpoint: Endpoint, gauges: Callable[[], dict[str, float]]) -> None:
        self._endpoint, self._gauges = endpoint, gauges
        self._metrics, self._clock, self._project = endpoint.metrics, endpoint.clock, endpoint.project
        self._infer_path = f"/v2/models/{endpoint.project}/infer"
        self._infer_route = Route("infer", posts=True)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        arrived_us = self._clock.monotonic_us()
        try:
            if scope["path"] == self._infer_path and scope["method"] == "POST":
                route = self._infer_route
            else:
                route = route_of(scope["method"], scope["path"], self._project)
            if self._endpoint.keys is not None and route.asks not in OPEN_TO_ALL:
                self._endpoint.keys.check(dict(scope["headers"]).get(b"authorization", b""))
            if route.posts:
                status, body, headers = await self._predict(route, scope, receive, arrived_us)
            else:
                status, body, headers = self._told(route)
        except _CallerLeft:
            return
        except TidewheelError as error:
            status, body, headers = _failure(error)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # nothing a caller sends may end in a bare 500 or a traceback
            self._metrics.internal_error(error)
            status, body, headers = 503, oip.encode_error(OUR_FAULT), (JSON,)
        self._metrics.response(status)
        if self._endpoint.draining:
            headers = (*headers, CLOSE)
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
        await send({"type": "http.response.body", "body": body})

    async def _predict(
        self, route: Route, scope: MutableMapping[str, Any], receive: Receive, arrived_us: int
    ) -> Answer:
        heeded = _heeded(scope["headers"])
        timeout_us = timeout_us_of(heeded[b"x-request-timeout-ms"]) if b"x-request-timeout-ms" in heeded else None
        data = await _read_body(receive)
        endpoint = self._endpoint
        snapshot = endpoint.serving()
        accepted = endpoint.accepted(snapshot, route.version)
        call = endpoint.call(arrived_us, route.version, timeout_us)
        if route.asks == "predict":
            request, layout = v1.decode_request(data, accepted, call)
            reply = await endpoint.predict(request, snapshot)
            return 200, v1.encode_reply(request.request_id, reply, layout), (JSON,)
        request, form = oip.decode_request(data, accepted, call, _json_length(heeded.get(JSON_LENGTH)))
        reply = await endpoint.predict(request, snapshot)
        body, json_length = oip.encode_reply(self._project, request.request_id, reply, form)
        if json_length is None:
            return 200, body, (JSON,)
        return 200, body, (BYTES, (JSON_LENGTH, b"%d" % json_length))

    def _told(self, route: Route) -> Answer:
        """Answers that need no body."""
        endpoint, project, version = self._endpoint, self._project, route.version
        status = 200
        told: dict[str, Any]
        match route.asks:
            case "metrics":
                return 200, self._metrics.text(self._gauges()).encode(), (TEXT,)
            case "alive":
                told = {"status": "alive"}
            case "live":
                told = {"live": True}
            case "server ready":
                status, told = (200 if endpoint.ready else 503), {"ready": endpoint.ready}
            case "server":
                told = {"name": "tidewheel", "version": __version__, "extensions": ["binary_tensor_data"]}
            case "openapi":
                told = endpoint.openapi()
            case "models":
                told = {"models": [project]}
            case "metadata":
                told = endpoint.metadata(version)
            case _:
                able = endpoint.model_ready(version)
                status, told = (200 if able else 503), {"name": project, "ready": able}
        return status, oip.encode_json(told), (JSON,)


def _heeded(headers: list[Header]) -> dict[bytes, bytes]:
    """Headers that matter. Raises TooLarge and BadRequest before a byte of the body is read."""
    heeded = {name: value for name, value in headers if name in _HEEDED}
    length = heeded.get(b"content-length")
    if length is not None and (not length.isdigit() or len(length) > 18 or int(length) > MAX_BODY_BYTES):
        raise TooLarge(f"body: at most {MAX_BODY_BYTES} bytes (got {length.decode('latin-1')[:20]})")
    encoding = heeded.get(b"content-encoding", b"")
    if encoding not in (b"", b"identity"):
        raise BadRequest(f"content-encoding: not supported (got {encoding.decode('latin-1')[:20]!r}); send it plain")
    return heeded


def _json_length(value: bytes | None) -> int | None:
    if value is None:
        return None
    if value.isdigit() and len(value) <= 9:
        return int(value)
    raise BadRequest(f"inference-header-content-length: must be a whole number (got {value.decode('latin-1')[:20]!r})")


async def _read_body(receive: Receive) -> bytes:
    """The whole body, refused where it proves to be too long; the connection bounds how long it may take."""
    message = await receive()
    data: bytes = message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise _CallerLeft
    if not message.get("more_body", False):
        return data
    parts, size = [data], len(data)
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _CallerLeft
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            raise TooLarge(f"body: at most {MAX_BODY_BYTES} bytes")
    return b"".join(parts)


def _failure(error: TidewheelError) -> Answer:
    body = oip.encode_error(str(error))
    if isinstance(error, NotAllowed):
        return 405, body, (JSON, (b"allow", error.allowed.encode()))
    fault = fault_of(error)
    if fault.status == 401:
        return 401, body, (JSON, (b"www-authenticate", b"Bearer"))
    if fault.status == 413:
        return 413, body, (JSON, CLOSE)  # the rest of the body is not read
    if fault.retry_after_s is not None:
        return fault.status, body, (JSON, (b"retry-after", b"%d" % fault.retry_after_s))
    return fault.status, body, (JSON,)
