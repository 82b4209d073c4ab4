"""Ask a running model server of the tiny project with KServe's own clients; prints what each was told as JSON.

A process of its own: KServe's messages and ours have the same names and cannot be loaded together.

    python kserve_clients.py HTTP_URL GRPC_ADDRESS
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

T0_US = 1_600_000_000_000_000
NAMES = ("score", "decision", "model_version", "degraded", "reasons")


def asked(*, binary: bool) -> InferRequest:
    columns = {
        "customer_id": ("INT64", np.array([7, 8], np.int64)),
        "amount": ("FP64", np.array([9.0, 290.0])),
        "channel": ("BYTES", np.array([b"web", b"shop"], np.object_)),
        "paid_at": ("INT64", np.array([T0_US, T0_US], np.int64)),
    }
    inputs = []
    for name, (datatype, values) in columns.items():
        one = InferInput(name=name, shape=[2], datatype=datatype)
        one.set_data_from_numpy(values, binary_data=binary)
        inputs.append(one)
    return InferRequest(model_name="tiny", infer_inputs=inputs)


def plain(response: Any) -> dict[str, list[Any]]:
    found = {}
    for output in response.outputs:
        values = output.as_numpy().tolist()
        found[output.name] = [one.decode() if isinstance(one, bytes) else one for one in values]
    return {name: found[name] for name in NAMES}


async def main(url: str, address: str) -> dict[str, dict[str, list[Any]]]:
    told = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        assert await client.is_server_live(url) and await client.is_server_ready(url)
        assert await client.is_model_ready(url, "tiny")
        assert not await client.is_model_ready(url, "other")
        told["v2 rest"] = plain(await client.infer(url, asked(binary=False), model_name="tiny"))
        told["v2 rest binary"] = plain(await client.infer(url, asked(binary=True), model_name="tiny"))
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        assert await client.is_server_live(url)
        assert await client.is_model_ready(url, "tiny")
        rows = [
            {"customer_id": 7, "amount": 9.0, "channel": "web", "paid_at": T0_US},
            {"customer_id": 8, "amount": 290.0, "channel": "shop", "paid_at": T0_US},
        ]
        predictions = (await client.infer(url, {"instances": rows}, model_name="tiny"))["predictions"]
        told["v1 rest"] = {name: [one[name] for one in predictions] for name in NAMES}
    async with InferenceGRPCClient(address) as client:
        assert await client.is_server_live() and await client.is_server_ready()
        assert await client.is_model_ready("tiny")
        told["v2 grpc raw"] = plain(await client.infer(asked(binary=True)))
        typed = asked(binary=False)
        for one in typed.inputs:
            if one.datatype == "BYTES":
                one.data = [text.encode() for text in one.data]
        told["v2 grpc typed"] = plain(await client.infer(typed))
    return told


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(*sys.argv[1:]))) + "\n")
