"""Open Inference Protocol v2 over gRPC: messages to PredictRequest, PredictReply to messages. Knows no gRPC server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from tidewheel.serving.columns import Accepted
from tidewheel.serving.proto import open_inference_pb2 as pb
from tidewheel.serving.protocols.assemble import Call, assemble
from tidewheel.serving.protocols.oip import CONTRIBUTIONS, OUTPUTS, one_version, values_by_output
from tidewheel.serving.protocols.tensors import as_text, elements_of, finite_or_missing, raw_of, values_of
from tidewheel.serving.request import BadRequest, PredictReply, PredictRequest

_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


@dataclass(slots=True)
class _Input:
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


@dataclass(frozen=True, slots=True)
class Form:
    """Which outputs a caller wants, and whether as bytes."""

    names: tuple[str, ...]
    raw: bool


_EVERY = tuple(OUTPUTS)


def parse(data: bytes) -> pb.ModelInferRequest:
    """Raises BadRequest where the bytes are no such message."""
    try:
        message: pb.ModelInferRequest = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        raise BadRequest("body: not a ModelInferRequest of the Open Inference Protocol v2") from None
    return message


def decode_request(message: pb.ModelInferRequest, accepted: Accepted, call: Call) -> tuple[PredictRequest, Form]:
    """Check a message whole. Raises BadRequest that names the field, what was got and what is allowed."""
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise BadRequest(f"raw_input_contents: one for each of {len(message.inputs)} inputs (got {len(raw)})")
    inputs = []
    for at, tensor in enumerate(message.inputs):
        name, datatype, shape = tensor.name, tensor.datatype, list(tensor.shape)
        if not raw:
            values = _typed(name[:100], datatype, shape, tensor)
        elif tensor.HasField("contents"):
            raise BadRequest(f"{name[:100]}: has contents beside raw_input_contents; send one of them")
        else:
            values = values_of(name[:100], datatype, shape, raw[at])
        inputs.append(_Input(name, shape, datatype, values))
    names = tuple(output.name for output in message.outputs) or _EVERY
    if len(set(names)) != len(names) or not set(names) <= OUTPUTS.keys():
        raise BadRequest(f"outputs: ask once for each you want; there are {', '.join(OUTPUTS)} (got {names[:8]})")
    request = assemble(inputs, accepted, call, message.id or None)
    request.test, request.explain = (_flag(message, name) for name in ("test", "explain"))
    return request, Form(names, bool(raw))


def _flag(message: pb.ModelInferRequest, name: str) -> bool:
    if name not in message.parameters:
        return False
    if message.parameters[name].WhichOneof("parameter_choice") != "bool_param":
        raise BadRequest(f"parameters: {name}: must be a bool_param")
    return bool(message.parameters[name].bool_param)


def _typed(name: str, datatype: str, shape: list[int], tensor: pb.ModelInferRequest.InferInputTensor) -> list[Any]:
    """The values of ``contents``; NaN is missing. The field must be the datatype's and fit the shape."""
    field = _CONTENTS.get(datatype)
    if field is None:
        raise BadRequest(f"{name}: wrong datatype (got {datatype[:20]!r}); typed contents are {', '.join(_CONTENTS)}")
    found = getattr(tensor.contents, field)
    n = elements_of(name, shape)
    if len(found) != n:
        raise BadRequest(f"{name}: {field} of shape {shape[:8]} must hold {n} values (got {len(found)})")
    if datatype == "BYTES":
        return [as_text(name, value) for value in found]
    if datatype in ("FP32", "FP64"):
        return finite_or_missing(name, list(found))
    return list(found)


def encode_reply(model: str, request_id: str, reply: PredictReply, form: Form) -> bytes:
    """The message of an answer; a score that nothing gave is NaN."""
    n, values = len(reply.scores), values_by_output(reply)
    message = pb.ModelInferResponse(model_name=model, model_version=one_version(reply), id=request_id)
    for name in form.names:
        datatype = OUTPUTS[name]
        output = message.outputs.add(name=name, datatype=datatype, shape=[n])
        if form.raw:
            message.raw_output_contents.append(raw_of(datatype, values[name]))
        elif datatype == "FP64":
            output.contents.fp64_contents.extend([float("nan") if one is None else one for one in values[name]])
        elif datatype == "BOOL":
            output.contents.bool_contents.extend(values[name])
        else:
            output.contents.bytes_contents.extend([one.encode() for one in values[name]])
    if reply.contributions is not None:
        flat = reply.contributions.ravel().tolist()
        output = message.outputs.add(name=CONTRIBUTIONS, datatype="FP64", shape=reply.contributions.shape)
        if form.raw:
            message.raw_output_contents.append(raw_of("FP64", flat))
        else:
            output.contents.fp64_contents.extend(flat)
    made: bytes = message.SerializeToString()
    return made


def metadata(told: dict[str, Any]) -> bytes:
    """Model metadata from what the REST interface tells."""
    message = pb.ModelMetadataResponse(name=told["name"], versions=told["versions"], platform=told["platform"])
    for side in ("inputs", "outputs"):
        for one in told[side]:
            getattr(message, side).add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
    made: bytes = message.SerializeToString()
    return made
