"""The V1 protocol (``:predict``): rows as objects by name, or columns; bytes to PredictRequest and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from tidewheel.serving.columns import Accepted
from tidewheel.serving.protocols.assemble import MAX_ROWS, VECTOR, Call, assemble
from tidewheel.serving.protocols.oip import CONTRIBUTIONS, values_by_output
from tidewheel.serving.request import BadRequest, PredictReply, PredictRequest

Layout = Literal["rows", "columns"]


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    instances: list[Any] | None = None
    inputs: dict[str, list[Any]] | None = None
    id: str | None = None
    signature_name: str | None = None  # TensorFlow's clients send it


@dataclass(slots=True)
class _Values:
    """A plain list of one value per row."""

    name: str
    data: list[Any]
    shape: list[int]
    datatype: None = None


_decoder = msgspec.json.Decoder(_Body)
_encoder = msgspec.json.Encoder()


def decode_request(body: bytes, accepted: Accepted, call: Call) -> tuple[PredictRequest, Layout]:
    """Check a body whole: ``{"instances": [{"name": value, ...}, ...]}``, or a list of numbers per instance for a whole
    feature vector, or ``{"inputs": {"name": [value, ...]}}``.

    Raises BadRequest that names the field, what was got and what is allowed.
    """
    try:
        parsed = _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(f"body: not a request of the V1 protocol: {error}") from None
    if (parsed.instances is None) == (parsed.inputs is None):
        raise BadRequest('body: needs either "instances" (a list) or "inputs" (lists by name)')
    if parsed.inputs is not None:
        named = [_Values(name, data, _shape(data)) for name, data in parsed.inputs.items()]
        return assemble(named, accepted, call, parsed.id), "columns"
    assert parsed.instances is not None
    return assemble(_columns(parsed.instances), accepted, call, parsed.id), "rows"


def _columns(instances: list[Any]) -> list[_Values]:
    n = len(instances)
    if not 0 < n <= MAX_ROWS:
        raise BadRequest(f"instances: must be 1 to {MAX_ROWS} (got {n})")
    if all(type(row) is list for row in instances):
        return [_Values(VECTOR, instances, _shape(instances))]
    if not all(type(row) is dict for row in instances):
        raise BadRequest("instances: must all be objects by name, or all lists of the model's features")
    names = dict.fromkeys(name for row in instances for name in row)
    return [_Values(name, [row.get(name) for row in instances], [n]) for name in names]


def _shape(data: list[Any]) -> list[int]:
    return [len(data), len(data[0])] if data and type(data[0]) is list else [len(data)]


def encode_reply(request_id: str, reply: PredictReply, layout: Layout) -> bytes:
    """The body of a 200: ``predictions``, an object per row, or ``outputs``, a list per name."""
    values = values_by_output(reply)
    if reply.contributions is not None:
        values[CONTRIBUTIONS] = reply.contributions.tolist()
    if layout == "columns":
        return _encoder.encode({"id": request_id, "outputs": values})
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return _encoder.encode({"id": request_id, "predictions": rows})
