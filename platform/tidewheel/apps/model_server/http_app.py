"""The HTTP face of the model server: Open Inference Protocol v2, V1, health and metrics.

Every answer is JSON (metrics apart); every fault has ``{"error": ...}`` and says what is allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote

from tidewheel import __version__
from tidewheel.apps.model_server.endpoint import MAX_BODY_BYTES, OUR_FAULT, Endpoint, fault_of, timeout_us_of
from tidewheel.apps.model_server.http_connection import Exchange, Header
from tidewheel.apps.model_server.routes import OPEN_TO_ALL, NotAllowed, Route, route_of
from tidewheel.errors import TidewheelError
from tidewheel.serving.protocols import oip, v1
from tidewheel.serving.request import BadRequest, PredictReply, PredictRequest, TooLarge

JSON = b"content-type: application/json\r\n"
BYTES = b"content-type: application/octet-stream\r\n"
TEXT = b"content-type: text/plain; version=0.0.4\r\n"
JSON_LENGTH = b"inference-header-content-length"
MAX_REQUEST_ID = 128

Told = Mapping[str, Mapping[tuple[str, ...], float] | float]  # metrics that others keep
Answer = tuple[int, bytes, bytes]  # status, body, header lines


class HttpApp:
    """What the connections of one project's server call with each request."""

    def __init__(self, endpoint: Endpoint, told: Callable[[], Told], status: Callable[[], bytes]) -> None:
        self._endpoint, self._told_metrics, self._told_status = endpoint, told, status
        self._metrics, self._project = endpoint.metrics, endpoint.project
        self._infer_url = f"/v2/models/{endpoint.project}/infer".encode()
        self._infer_route = Route("infer", posts=True)

    def check(self, headers: list[Header]) -> Answer | None:
        """Why a request is refused by its headers alone, before a byte of its body is read."""
        for name, value in headers:
            try:
                if name == b"content-length" and (
                    not value.isdigit() or len(value) > 18 or int(value) > MAX_BODY_BYTES
                ):
                    raise TooLarge(f"body: at most {MAX_BODY_BYTES} bytes (got {value.decode('latin-1')[:20]})")
                if name == b"content-encoding" and value not in (b"", b"identity"):
                    got = value.decode("latin-1")[:20]
                    raise BadRequest(f"content-encoding: not supported (got {got!r}); send it plain")
            except TidewheelError as error:
                answer = _failure(error)
                self._metrics.response(answer[0])
                return answer
        return None

    def handle(self, exchange: Exchange) -> None:
        """Answer, at once or when the prediction is there."""
        try:
            if exchange.url == self._infer_url and exchange.method == "POST":
                route = self._infer_route
            else:
                path = unquote(exchange.url.partition(b"?")[0].decode("latin-1"))
                route = route_of(exchange.method, path, self._project)
            if self._endpoint.guarded and route.asks not in OPEN_TO_ALL:
                self._endpoint.check_caller(dict(exchange.headers))
            if route.posts:
                self._predict(route, exchange)
                return
            answer = self._told(route)
        except TidewheelError as error:
            answer = _failure(error)
        except Exception as error:  # nothing a caller sends may end in a bare 500 or a traceback
            answer = self._our_fault(error)
        self._send(exchange, answer)

    def _send(self, exchange: Exchange, answer: Answer, echo: bytes = b"") -> None:
        status, body, headers = answer
        self._metrics.response(status)
        exchange.answer(status, body, headers + echo, close=self._endpoint.draining or status == 413)

    def _our_fault(self, error: BaseException) -> Answer:
        self._metrics.internal_error(error)
        return 503, oip.encode_error(OUR_FAULT), JSON

    def _predict(self, route: Route, exchange: Exchange) -> None:
        timeout_us = json_length = None
        request_id, trace = "", None
        for name, value in exchange.headers:
            if name == b"x-request-timeout-ms":
                timeout_us = timeout_us_of(value)
            elif name == JSON_LENGTH:
                json_length = _json_length(value)
            elif name == b"x-request-id":
                request_id = request_id_of(value)
            elif name == b"traceparent":
                trace = value.decode("latin-1")[:200]
        endpoint = self._endpoint
        snapshot = endpoint.serving()
        accepted = endpoint.accepted(snapshot, route.version)
        call = endpoint.call(exchange.began_us, route.version, timeout_us, request_id)
        form: Any
        if route.asks == "infer":
            request, form = oip.decode_request(exchange.body, accepted, call, json_length)
        else:
            request, form = v1.decode_request(exchange.body, accepted, call)
            request.explain = route.asks == "explain"
        request.traceparent = trace
        future = endpoint.predict(request, snapshot)
        echo = b"x-request-id: %b\r\n" % request_id.encode() if request_id else b""
        if request.explain:
            future = asyncio.ensure_future(endpoint.explained(future, snapshot))
        future.add_done_callback(partial(self._replied, exchange, request, form, echo))

    def _replied(
        self, exchange: Exchange, request: PredictRequest, form: Any, echo: bytes, future: asyncio.Future[PredictReply]
    ) -> None:
        try:
            if future.cancelled():
                return
            reply = future.result()
            if not isinstance(form, oip.Form):
                answer: Answer = 200, v1.encode_reply(request.request_id, reply, form), JSON
            else:
                body, json_length = oip.encode_reply(self._project, request.request_id, reply, form)
                if json_length is None:
                    answer = 200, body, JSON
                else:
                    answer = 200, body, b"%b%b: %d\r\n" % (BYTES, JSON_LENGTH, json_length)
        except TidewheelError as error:
            answer = _failure(error)
        except Exception as error:
            answer = self._our_fault(error)
        self._send(exchange, answer, echo)

    def _told(self, route: Route) -> Answer:
        """Answers that need no body."""
        endpoint, project, version = self._endpoint, self._project, route.version
        status = 200
        told: dict[str, Any]
        match route.asks:
            case "metrics":
                return 200, self._metrics.text(self._told_metrics()).encode(), TEXT
            case "status":
                return 200, self._told_status(), JSON
            case "alive":
                told = {"status": "alive"}
            case "live":
                told = {"live": True}
            case "server ready":
                status = 200 if endpoint.ready else 503
                told = {"ready": endpoint.ready, "generation": endpoint.generation}
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
        return status, oip.encode_json(told), JSON


def request_id_of(value: bytes) -> str:
    """``x-request-id`` where it can be told back and logged, else nothing: a proxy's oddity fails no request."""
    text = value.decode("latin-1")
    return text if len(text) <= MAX_REQUEST_ID and text.isascii() and text.isprintable() else ""


def _json_length(value: bytes) -> int:
    if value.isdigit() and len(value) <= 9:
        return int(value)
    raise BadRequest(f"inference-header-content-length: must be a whole number (got {value.decode('latin-1')[:20]!r})")


def _failure(error: TidewheelError) -> Answer:
    body = oip.encode_error(str(error))
    if isinstance(error, NotAllowed):
        return 405, body, b"%ballow: %b\r\n" % (JSON, error.allowed.encode())
    fault = fault_of(error)
    if fault.status == 401:
        return 401, body, JSON + b"www-authenticate: Bearer\r\n"
    if fault.retry_after_s is not None:
        return fault.status, body, b"%bretry-after: %d\r\n" % (JSON, fault.retry_after_s)
    return fault.status, body, JSON
