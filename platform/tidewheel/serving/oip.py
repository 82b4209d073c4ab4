"""Open Inference Protocol v2, REST: bytes to PredictRequest, PredictReply to bytes. Pure; knows no HTTP server.

Stricter than common servers where the protocol is: shape must fit data, every fault is a 400 with an ``error``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tidewheel.serving.columns import RequestColumns
from tidewheel.serving.request import BadRequest, PredictReply, PredictRequest

MAX_ROWS = 4096


class _Input(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] | None = None


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[_Input]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[dict[str, Any]] | None = None


_decoder = msgspec.json.Decoder(_Body)
_encoder = msgspec.json.Encoder()


def decode_request(
    body: bytes, columns: RequestColumns, *, new_id: str, now_us: int, arrived_us: int, pinned: str | None = None
) -> PredictRequest:
    """Check a body whole. ``now_us`` is the event time of a caller that sends none, ``new_id`` likewise.

    Raises BadRequest that names the field, what was got and what is allowed.
    """
    try:
        parsed = _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(f"body: not a request of the Open Inference Protocol v2: {error}") from None
    known, got, n_rows = columns.by_name, {}, -1
    for tensor in parsed.inputs:
        column = known.get(tensor.name)
        if column is None:
            allowed = ", ".join(known)
            raise BadRequest(f"inputs: unknown name (got {tensor.name[:100]!r}); allowed are {allowed}")
        if column.name in got:
            raise BadRequest(f"{column.name}: sent twice; send each input once")
        if tensor.datatype not in column.datatypes:
            allowed = ", ".join(column.datatypes)
            raise BadRequest(f"{column.name}: wrong datatype (got {tensor.datatype[:20]!r}); allowed are {allowed}")
        n = _rows(column.name, tensor)
        if n_rows not in (-1, n):
            raise BadRequest(f"{column.name}: every input must have the same number of rows (got {n} and {n_rows})")
        n_rows = n
        got[column.name] = column.checked(tensor.data)
    missing = [name for name in columns.required if name not in got]
    if missing:
        raise BadRequest(f"inputs: required but missing: {', '.join(missing)}")
    request_id = parsed.id or new_id
    if len(request_id) > 200:
        raise BadRequest(f"id: must be at most 200 characters (got {len(request_id)})")
    times = got.pop(columns.event_time, None) or [None] * n_rows
    events = got.pop(columns.event_id, None) or [None] * n_rows
    request = PredictRequest(
        request_id,
        n_rows,
        got,
        [],
        [now_us if at_us is None else at_us for at_us in times],
        arrived_us,
        pinned,
    )
    request.event_ids = [request.row_id(row) if event is None else event for row, event in enumerate(events)]
    return request


def _rows(name: str, tensor: _Input) -> int:
    shape, n = tensor.shape, len(tensor.data)
    if shape not in ([n], [n, 1]) or n == 0:
        raise BadRequest(f"{name}: shape does not fit data (got {shape[:8]} for {n} values); allowed is [n] or [n, 1]")
    if n > MAX_ROWS:
        raise BadRequest(f"{name}: at most {MAX_ROWS} rows in one request (got {n}); split it")
    return n


def encode_reply(model: str, request_id: str, reply: PredictReply) -> bytes:
    """The body of a 200. ``score`` is null where only the static decision could answer."""
    n = len(reply.scores)
    versions = set(reply.versions)
    return _encoder.encode(
        {
            "model_name": model,
            "model_version": versions.pop() if len(versions) == 1 else "",
            "id": request_id,
            "outputs": [
                _output("score", "FP64", n, reply.scores),
                _output("decision", "BYTES", n, reply.decisions),
                _output("model_version", "BYTES", n, reply.versions),
                _output("degraded", "BOOL", n, reply.degraded),
                _output("reasons", "BYTES", n, [";".join(reasons) for reasons in reply.reasons]),
            ],
        }
    )


def _output(name: str, datatype: str, n: int, data: Sequence[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [n], "data": data}


def encode_error(message: str) -> bytes:
    return _encoder.encode({"error": message})


def encode_json(body: Mapping[str, Any]) -> bytes:
    return _encoder.encode(body)


def metadata(model: str, columns: RequestColumns, versions: Sequence[str]) -> dict[str, Any]:
    """Model metadata as the protocol has it: inputs a caller may send and outputs it gets."""
    inputs = {column.name: column for column in columns.by_name.values()}
    outputs = {"score": "FP64", "decision": "BYTES", "model_version": "BYTES", "degraded": "BOOL", "reasons": "BYTES"}
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
        "outputs": [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in outputs.items()],
    }
