"""The gRPC face of the model server: the Open Inference Protocol's service, health and reflection.

It runs on the event loop of the HTTP face, so that requests of both wait and are scored together. Messages are parsed
here and not by the library, whose answer to bytes that are none would be an internal error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tidewheel import __version__
from tidewheel.apps.model_server.endpoint import MAX_BODY_BYTES, OUR_FAULT, Endpoint, fault_of
from tidewheel.apps.model_server.http_connection import Limits
from tidewheel.errors import NotFound, TidewheelError
from tidewheel.serving.proto import open_inference_pb2 as pb
from tidewheel.serving.protocols import oip_grpc
from tidewheel.serving.request import BadRequest, PredictReply

SERVICE = "inference.GRPCInferenceService"
MAX_STREAMS = 256  # on one connection
LOOK_EVERY_S = 0.1

Handler = Callable[[bytes, Any], Awaitable[bytes]]


class GrpcServer:
    """One port; ``start`` and ``stop`` on the event loop."""

    def __init__(self, endpoint: Endpoint, host: str, port: int, limits: Limits) -> None:
        self._endpoint, self._project = endpoint, endpoint.project
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", MAX_BODY_BYTES),
                ("grpc.max_metadata_size", 16 * 1024),
                ("grpc.max_concurrent_streams", MAX_STREAMS),
                ("grpc.max_connection_age_ms", int(limits.age_s * 1000)),  # gRPC adds the jitter
                ("grpc.max_connection_age_grace_ms", int(limits.answer_s * 1000)),
                ("grpc.max_connection_idle_ms", int(limits.idle_s * 1000)),
                ("grpc.server_handshake_timeout_ms", int(limits.header_s * 1000)),
            ]
        )
        calls: dict[str, tuple[Handler, bool]] = {
            "ServerLive": (self._server_live, True),
            "ServerReady": (self._server_ready, True),
            "ModelReady": (self._model_ready, False),
            "ServerMetadata": (self._server_metadata, False),
            "ModelMetadata": (self._model_metadata, False),
            "ModelInfer": (self._model_infer, False),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(self._guarded(handler, open_to_all=open_to_all))
            for name, (handler, open_to_all) in calls.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self._server.add_insecure_port(f"{host}:{port}")
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._server.start()
        self._watching = asyncio.create_task(self._watch_health())

    async def stop(self, grace_s: float) -> None:
        """Take no more calls and end those that run, after ``grace_s`` at the latest."""
        if self._watching is not None:
            self._watching.cancel()
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)

    async def _watch_health(self) -> None:
        """Say by the health protocol what readiness is, soon after it changes."""
        told = None
        while True:
            ready = self._endpoint.ready
            if ready != told:
                kinds = health_pb2.HealthCheckResponse
                for service in ("", SERVICE):
                    await self._health.set(service, kinds.SERVING if ready else kinds.NOT_SERVING)
                told = ready
            await asyncio.sleep(LOOK_EVERY_S)

    def _guarded(self, handler: Handler, *, open_to_all: bool) -> Handler:
        """With the API key checked and faults told as all protocols tell them."""
        endpoint = self._endpoint
        guarded = endpoint.guarded and not open_to_all

        async def call(data: bytes, context: Any) -> bytes:
            retry: tuple[tuple[str, str], ...] = ()
            try:
                if guarded:
                    endpoint.check_caller(_sent(context))
                answer = await handler(data, context)
                endpoint.metrics.response(200, "grpc")
                return answer
            except TidewheelError as error:
                fault, message = fault_of(error), str(error)
                if fault.retry_after_s is not None:
                    retry = (("retry-after", str(fault.retry_after_s)),)
                status, code = fault.status, fault.code
            except asyncio.CancelledError:
                raise
            except Exception as error:  # nothing a caller sends may end in a traceback
                endpoint.metrics.internal_error(error)
                status, code, message = 503, "UNAVAILABLE", OUR_FAULT
            endpoint.metrics.response(status, "grpc")
            await context.abort(grpc.StatusCode[code], message, retry)
            raise AssertionError("abort raises")

        return call

    async def _model_infer(self, data: bytes, context: Any) -> bytes:
        endpoint = self._endpoint
        arrived_us = endpoint.clock.monotonic_us()
        left_s = context.time_remaining()
        message = oip_grpc.parse(data)
        self._known(message.model_name)
        pinned = message.model_version or None
        snapshot = endpoint.serving()
        accepted = endpoint.accepted(snapshot, pinned)
        call = endpoint.call(arrived_us, pinned, None if left_s is None else max(int(left_s * 1e6), 1))
        request, form = oip_grpc.decode_request(message, accepted, call)
        request.traceparent = _sent(context).get(b"traceparent", b"").decode("latin-1")[:200] or None
        reply = await endpoint.predict(request, snapshot)
        if request.explain:
            reply = await endpoint.explained(_done(reply), snapshot)
        return oip_grpc.encode_reply(self._project, request.request_id, reply, form)

    async def _server_live(self, data: bytes, context: Any) -> bytes:
        _parsed(pb.ServerLiveRequest, data)
        return _bytes(pb.ServerLiveResponse(live=True))

    async def _server_ready(self, data: bytes, context: Any) -> bytes:
        _parsed(pb.ServerReadyRequest, data)
        return _bytes(pb.ServerReadyResponse(ready=self._endpoint.ready))

    async def _model_ready(self, data: bytes, context: Any) -> bytes:
        asked = _parsed(pb.ModelReadyRequest, data)
        self._known(asked.name)
        return _bytes(pb.ModelReadyResponse(ready=self._endpoint.model_ready(asked.version or None)))

    async def _server_metadata(self, data: bytes, context: Any) -> bytes:
        _parsed(pb.ServerMetadataRequest, data)
        return _bytes(pb.ServerMetadataResponse(name="tidewheel", version=__version__))

    async def _model_metadata(self, data: bytes, context: Any) -> bytes:
        asked = _parsed(pb.ModelMetadataRequest, data)
        self._known(asked.name)
        return oip_grpc.metadata(self._endpoint.metadata(asked.version or None))

    def _known(self, name: str) -> None:
        if name != self._project:
            raise NotFound(f"model {name[:100]!r}: no such model; this server has {self._project!r}")


def _sent(context: Any) -> dict[bytes, bytes]:
    """A call's metadata as headers."""
    return {
        name.encode(): value if isinstance(value, bytes) else value.encode("utf-8", "replace")
        for name, value in context.invocation_metadata() or ()
    }


def _done(reply: PredictReply) -> asyncio.Future[PredictReply]:
    future: asyncio.Future[PredictReply] = asyncio.get_running_loop().create_future()
    future.set_result(reply)
    return future


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise BadRequest(f"body: not a {kind.DESCRIPTOR.name} of the Open Inference Protocol v2") from None


def _bytes(message: Message) -> bytes:
    made: bytes = message.SerializeToString()
    return made
