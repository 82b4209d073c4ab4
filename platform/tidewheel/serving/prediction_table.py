"""Rows of the prediction log as a table of the lake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidewheel.records import PREDICTION_COLUMNS, REQUEST_PREFIX
from tidewheel.serving.prediction_record import PredictionRecord

_LISTS = {
    "list<double>": pa.list_(pa.float64()),
    "list<int64>": pa.list_(pa.int64()),
    "list<string>": pa.list_(pa.string()),
}
_ARRAYS = {"features": "<f8", "positions": "<i8"}  # kept as bytes in a record
_COPY_OF = "copy_of"
_ALIASES = {"float64": "double", "float32": "float"}


def prediction_schema(request_columns: Mapping[str, str], event_time: str = "", event_id: str = "") -> pa.Schema:
    """Arrow schema of the log; ``request_columns`` maps keys and the request's columns to spec types.

    ``event_time`` and ``event_id`` are the source's names for what the log has as event_time_us and event_id.
    """
    fields = [
        pa.field(name, _LISTS[kind] if kind in _LISTS else pa.type_for_alias(kind))
        for name, kind in PREDICTION_COLUMNS.items()
    ]
    fields += [
        pa.field(REQUEST_PREFIX + name, pa.type_for_alias(_ALIASES.get(kind, kind)))
        for name, kind in request_columns.items()
    ]
    if event_time:
        copied = {_COPY_OF: "event_time_us"}
        fields.append(pa.field(REQUEST_PREFIX + event_time, pa.timestamp("us", tz="UTC"), metadata=copied))
    if event_id:
        fields.append(pa.field(REQUEST_PREFIX + event_id, pa.string(), metadata={_COPY_OF: "event_id"}))
    return pa.schema(fields)


def to_table(records: Sequence[PredictionRecord], schema: pa.Schema) -> pa.Table:
    """Records as a table of ``schema``; the first record of an id stays, a column that a record lacks is null."""
    kept = list({record.record_id: record for record in reversed(records)}.values())[::-1]
    columns: list[pa.Array] = []
    for field in schema:
        source = (field.metadata or {}).get(_COPY_OF.encode())
        if source is not None:
            values = [getattr(record, source.decode()) for record in kept]
            columns.append(pa.array(values, field.type))
        elif field.name.startswith(REQUEST_PREFIX):
            name = field.name.removeprefix(REQUEST_PREFIX)
            columns.append(_column([record.columns.get(name) for record in kept], field.type))
        elif field.name in _ARRAYS:
            columns.append(_vectors([getattr(record, field.name) for record in kept], _ARRAYS[field.name]))
        else:
            columns.append(pa.array([getattr(record, field.name) for record in kept], field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        # A version with another schema wrote them: what fits the present type is kept.
        return pa.array([_one(value, kind) for value in values], kind)


def _one(value: Any, kind: pa.DataType) -> Any:
    try:
        return pa.scalar(value, kind).as_py()
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return None


def _vectors(raw: list[bytes], kind: str) -> pa.Array:
    vectors: list[NDArray[Any]] = [np.frombuffer(value, dtype=kind) for value in raw]
    offsets = np.cumsum([0, *(len(vector) for vector in vectors)]).astype(np.int32)
    flat = np.concatenate(vectors) if vectors else np.empty(0, dtype=kind)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))
