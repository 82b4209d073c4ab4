"""A closed loop of gRPC calls: each connection sends its next request when it has its answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import grpc
import grpc.aio
import msgspec
import numpy as np

from tidewheel.clock import SystemClock
from tidewheel.serving.proto import open_inference_pb2 as pb

INFER = "/inference.GRPCInferenceService/ModelInfer"
_CONTENTS = {"INT64": "int64_contents", "FP64": "fp64_contents", "BOOL": "bool_contents", "BYTES": "bytes_contents"}


def messages(project: str, bodies: Sequence[bytes]) -> list[bytes]:
    """REST bodies as messages of the same protocol."""
    made = []
    for body in bodies:
        message = pb.ModelInferRequest(model_name=project)
        for one in msgspec.json.decode(body)["inputs"]:
            tensor = message.inputs.add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
            data = [value.encode() for value in one["data"]] if one["datatype"] == "BYTES" else one["data"]
            getattr(tensor.contents, _CONTENTS[one["datatype"]]).extend(data)
        made.append(message.SerializeToString())
    return made


async def closed_loop(address: str, connections: int, sent: Sequence[bytes], n: int) -> tuple[float, float]:
    """(requests per second, 99th percentile in ms). Raises AioRpcError where a call fails."""
    clock, taken, left = SystemClock(), list[int](), iter(itertools.islice(itertools.cycle(sent), n))
    channels = [
        grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(connections)
    ]

    async def caller(channel: grpc.aio.Channel) -> None:
        infer = channel.unary_unary(INFER)
        for message in left:
            began_us = clock.monotonic_us()
            await infer(message)
            taken.append(clock.monotonic_us() - began_us)

    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    began_us = clock.monotonic_us()
    await asyncio.gather(*(caller(channel) for channel in channels))
    rate_rps = n / ((clock.monotonic_us() - began_us) / 1e6)
    await asyncio.gather(*(channel.close() for channel in channels))
    return rate_rps, float(np.percentile(taken, 99)) / 1000
