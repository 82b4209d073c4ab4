"""Open Inference Protocol v2 over REST, with its binary tensor extension: bytes to PredictRequest and back.

Stricter than common servers where the protocol is: shape must fit data, every fault is a 400 with an ``error``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tidewheel.serving.columns import Accepted
from tidewheel.serving.protocols.assemble import Call, assemble
from tidewheel.serving.protocols.tensors import raw_of, values_of
from tidewheel.serving.request import BadRequest, PredictReply, PredictRequest

# Every output of a reply and its datatype; a score is null where only the static decision could answer.
OUTPUTS = {
    "score": "FP64",
    "decision": "BYTES",
    "model_version": "BYTES",
    "degraded": "BOOL",
    "reasons": "BYTES",
    "feature_age_ms": "FP64",
}
CONTRIBUTIONS = "contributions"  # of shape [n, k + 1], where they are asked for
_SIZE = "binary_data_size"


class _Input(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any] = msgspec.field(default_factory=list)
    parameters: dict[str, Any] | None = None


class _Output(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    parameters: dict[str, Any] | None = None


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[_Input]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[_Output] | None = None
    # KServe's client repeats these; the path is what counts.
    model_name: str | None = None
    model_version: str | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """What a caller wants a reply to look like: which outputs, and which of them as bytes."""

    names: tuple[str, ...] = tuple(OUTPUTS)
    binary: frozenset[str] = frozenset()


ALL = Form()
_decoder = msgspec.json.Decoder(_Body)
_encoder = msgspec.json.Encoder()


def decode_request(
    body: bytes, accepted: Accepted, call: Call, header_length: int | None = None
) -> tuple[PredictRequest, Form]:
    """Check a body whole. ``header_length`` is that of the JSON in front of binary tensors, None without any.

    Raises BadRequest that names the field, what was got and what is allowed.
    """
    if header_length is None:
        parsed = _parse(body)
        for tensor in parsed.inputs:
            if tensor.parameters and _SIZE in tensor.parameters:
                raise BadRequest(f"{tensor.name[:100]}: {_SIZE} needs the header Inference-Header-Content-Length")
    else:
        if not 0 < header_length <= len(body):
            raise BadRequest(f"inference-header-content-length: must be 1 to {len(body)} (got {header_length})")
        parsed = _parse(body[:header_length])
        _take_binary(parsed.inputs, memoryview(body)[header_length:])
    form = ALL if parsed.outputs is None and parsed.parameters is None else _form(parsed)
    request = assemble(parsed.inputs, accepted, call, parsed.id)
    if parsed.parameters is not None:
        request.test = _flag("parameters: test", parsed.parameters.get("test"), default=False)
        request.explain = _flag("parameters: explain", parsed.parameters.get("explain"), default=False)
    return request, form


def _parse(body: bytes) -> _Body:
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(f"body: not a request of the Open Inference Protocol v2: {error}") from None


def _take_binary(inputs: Sequence[_Input], raw: memoryview) -> None:
    """Give each input that says so its part of the bytes behind the JSON."""
    at = 0
    for tensor in inputs:
        size = (tensor.parameters or {}).get(_SIZE)
        if size is None:
            continue
        if type(size) is not int or not 0 <= size <= len(raw) - at:
            raise BadRequest(
                f"{tensor.name[:100]}: {_SIZE} must be a whole number of at most {len(raw) - at} bytes, which are left "
                f"(got {repr(size)[:40]})"
            )
        if tensor.data:
            raise BadRequest(f"{tensor.name[:100]}: has data and {_SIZE}; send one of them")
        tensor.data = values_of(tensor.name[:100], tensor.datatype, tensor.shape, raw[at : at + size])
        at += size
    if at != len(raw):
        raise BadRequest(
            f"body: {len(raw) - at} bytes behind the last binary tensor; {_SIZE} of the inputs must add up"
        )


def _form(parsed: _Body) -> Form:
    every = _flag("parameters: binary_data_output", (parsed.parameters or {}).get("binary_data_output"), default=False)
    wanted = parsed.outputs or [_Output(name) for name in OUTPUTS]
    names = tuple(output.name for output in wanted)
    unknown = [name for name in names if name not in OUTPUTS]
    if unknown or len(set(names)) != len(names):
        told = f"unknown name (got {unknown[0][:100]!r})" if unknown else "ask for each output once"
        raise BadRequest(f"outputs: {told}; allowed are {', '.join(OUTPUTS)}")
    binary = {
        output.name
        for output in wanted
        if _flag(f"{output.name}: binary_data", (output.parameters or {}).get("binary_data"), default=every)
    }
    return Form(names, frozenset(binary))


def _flag(where: str, value: object, *, default: bool) -> bool:
    if value is None:
        return default
    if type(value) is not bool:
        raise BadRequest(f"{where}: must be true or false (got {repr(value)[:40]})")
    return value


def values_by_output(reply: PredictReply) -> dict[str, Sequence[Any]]:
    """Every output's values, one per row."""
    return {
        "score": reply.scores,
        "decision": reply.decisions,
        "model_version": reply.versions,
        "degraded": reply.degraded,
        "reasons": [";".join(reasons) for reasons in reply.reasons],
        "feature_age_ms": [age_us / 1000 for age_us in reply.ages_us or [0] * len(reply.scores)],
    }


def one_version(reply: PredictReply) -> str:
    """The version that answered, empty where several did or none."""
    if len(reply.versions) == 1:
        return reply.versions[0]
    versions = set(reply.versions)
    return versions.pop() if len(versions) == 1 else ""


class _Told(msgspec.Struct, omit_defaults=True):
    name: str
    datatype: str
    shape: list[int]
    data: Sequence[Any] | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, int] | msgspec.UnsetType = msgspec.UNSET


class _Reply(msgspec.Struct):
    model_name: str
    model_version: str
    id: str
    outputs: list[_Told]


def encode_reply(model: str, request_id: str, reply: PredictReply, form: Form = ALL) -> tuple[bytes, int | None]:
    """The body of a 200, and the length of its JSON where bytes follow."""
    n, values, raw = len(reply.scores), values_by_output(reply), []
    outputs = []
    for name in form.names:
        datatype = OUTPUTS[name]
        if name in form.binary:
            raw.append(raw_of(datatype, values[name]))
            outputs.append(_Told(name, datatype, [n], parameters={_SIZE: len(raw[-1])}))
        else:
            outputs.append(_Told(name, datatype, [n], values[name]))
    if reply.contributions is not None:
        shape, flat = list(reply.contributions.shape), reply.contributions.ravel().tolist()
        outputs.append(_Told(CONTRIBUTIONS, "FP64", shape, flat))
    head = _encoder.encode(_Reply(model, one_version(reply), request_id, outputs))
    return (b"".join((head, *raw)), len(head)) if raw else (head, None)


def encode_error(message: str) -> bytes:
    return _encoder.encode({"error": message})


def encode_json(body: Mapping[str, Any]) -> bytes:
    return _encoder.encode(body)


def metadata(model: str, accepted: Accepted, versions: Sequence[str]) -> dict[str, Any]:
    """Model metadata as the protocol has it: inputs a caller may send and outputs it gets."""
    inputs = {column.name: column for column in accepted.columns.by_name.values()}
    return {
        "name": model,
        "versions": list(versions),
        "platform": "tidewheel",
        "inputs": [
            {
                "name": name,
                "datatype": column.datatypes[0],
                "shape": [-1],
                "parameters": {"required": column.required},
            }
            for name, column in inputs.items()
        ],
        "outputs": [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in OUTPUTS.items()],
    }
