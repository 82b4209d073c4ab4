"""Rows of a table as request bodies of the Open Inference Protocol: one row, one body."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from tidewheel.errors import InputError
from tidewheel.serving.columns import Column
from tidewheel.spec.project import ModelProject

_encoder = msgspec.json.Encoder()
CHUNK_ROWS = 2048
# Parameters of a request that is logged as a test, which no monitor and no rollout counts.
TEST = {"test": True}


def sendable_columns(project: ModelProject) -> dict[str, Column]:
    """What the project's server takes, by column name; the label, where the request's source carries it, is not."""
    source = project.request_source
    found = {key: Column(key, entity.type, "key") for key, entity in project.entity_keys().items()}
    found[source.event_time] = Column(source.event_time, "time", "event_time")
    if source.event_id is not None:
        found[source.event_id] = Column(source.event_id, "id", "event_id")
    label = project.label.column if project.label.source == project.request else None
    found |= {name: Column(name, kind, "column") for name, kind in source.columns.items() if name != label}
    return found


def request_body(
    values: Mapping[str, Any], columns: Mapping[str, Column], parameters: Mapping[str, Any] | None = None
) -> bytes:
    """One request of one row; missing values are left out."""
    inputs = [
        {"name": name, "shape": [1], "datatype": _datatype(columns[name], value), "data": [value]}
        for name, value in values.items()
        if value is not None
    ]
    return _encoder.encode({"inputs": inputs, "parameters": parameters} if parameters else {"inputs": inputs})


def bodies(table: pa.Table, project: ModelProject, parameters: Mapping[str, Any] | None = None) -> Iterator[bytes]:
    """Bodies of all rows in order; columns that the project does not know are dropped. Raises InputError."""
    columns = sendable_columns(project)
    known = [name for name in table.column_names if name in columns]
    missing = [name for name, column in columns.items() if column.role == "key" and name not in known]
    if missing:
        raise InputError(f"column(s) {', '.join(missing)} are missing (got {', '.join(table.column_names)})")
    prepared = pa.table({name: _plain(table[name], columns[name], project) for name in known})
    return _encode_rows(prepared, columns, parameters)


def _encode_rows(
    prepared: pa.Table, columns: Mapping[str, Column], parameters: Mapping[str, Any] | None
) -> Iterator[bytes]:
    for start in range(0, prepared.num_rows, CHUNK_ROWS):
        lists = [column.to_pylist() for column in prepared.slice(start, CHUNK_ROWS).columns]
        for row in zip(*lists, strict=True):
            yield request_body(dict(zip(prepared.column_names, row, strict=True)), columns, parameters)


def _plain(values: pa.ChunkedArray, column: Column, project: ModelProject) -> pa.ChunkedArray:
    """Values as JSON has them: times as microseconds UTC, NaN as null, ids as text."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.cast(kind.value_type), kind.value_type
    if column.type == "time":
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
            return values
        if not pa.types.is_timestamp(kind):
            raise InputError(f"column {column.name!r} must be a time (got {kind})")
        values = values.cast(pa.timestamp("us", kind.tz), safe=False)
        if kind.tz is None:
            zone = project.request_source.timezone
            if zone is None:
                raise InputError(
                    f"column {column.name!r} has no time zone; declare one for the source {project.request!r}, such as "
                    "'timezone: UTC'"
                )
            values = pc.assume_timezone(values, zone, ambiguous="earliest", nonexistent="earliest")
        return values.cast(pa.int64())
    if column.type == "id":
        return values.cast(pa.string())
    if pa.types.is_floating(kind):
        values = pc.if_else(pc.is_finite(values), values, pa.scalar(None, kind))
    target = {"float64": pa.float64(), "float32": pa.float64(), "bool": pa.bool_(), "string": pa.string()}
    try:
        return values.cast(target.get(column.type, pa.int64()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"column {column.name!r} must be {column.type} (got {kind}): {error}") from error


def _datatype(column: Column, value: Any) -> str:
    if column.type in ("time", "id") and isinstance(value, str):
        return "BYTES"
    return "INT64" if column.type == "id" else column.datatypes[0]
