"""Events as people send them -> events as everything else reads them, and the rows that cannot be used, with why.

Normalised columns, under the source's own names: entity keys, event time (timestamp[us, UTC]), event id (string),
then the declared columns in their declared types. NaN becomes null, infinities are rejected. Ingest, the engines
over files and the training rows all pass through here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidewheel.clock import HOUR_US, parse_utc
from tidewheel.errors import InputError
from tidewheel.features.schema import topic_of
from tidewheel.spec.data import Source
from tidewheel.spec.project import ModelProject

__all__ = ["EVENT_TIME_TYPE", "OFFSET_COLUMN", "CheckedEvents", "normal_schema", "topic_of", "validate_events"]

EVENT_TIME_TYPE = pa.timestamp("us", tz="UTC")
OFFSET_COLUMN = "_offset"  # position in the event log, kept in the lake: the order of arrival
PARTITION_COLUMN = "_partition"  # int32: of the log, and with the offset what an event is called there
EARLIEST_US = parse_utc("1970-01-01")
LATEST_US = parse_utc("2200-01-01")
AHEAD_US = HOUR_US  # how far clocks may differ: an event from later than this has a wrong time

_TYPES = {
    "float64": pa.float64(),
    "float32": pa.float32(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "bool": pa.bool_(),
    "string": pa.string(),
}


@dataclass(frozen=True)
class CheckedEvents:
    """``good`` is normalised; ``rejected`` holds the rows as they came, with a column ``reason``."""

    good: pa.Table
    rejected: pa.Table


def normal_schema(project: ModelProject, name: str, keys: Collection[str]) -> pa.Schema:
    """Columns and types of normalised events of source ``name`` that carry ``keys``."""
    source = project.sources[name]
    fields = [pa.field(key, _TYPES[entity.type]) for key, entity in project.entity_keys().items() if key in keys]
    fields.append(pa.field(source.event_time, EVENT_TIME_TYPE))
    if source.event_id is not None:
        fields.append(pa.field(source.event_id, pa.string()))
    fields.extend(pa.field(column, _TYPES[kind]) for column, kind in source.columns.items())
    return pa.schema(fields)


def validate_events(
    table: pa.Table,
    name: str,
    project: ModelProject,
    keys: Collection[str] = (),
    optional: Collection[str] = (),
    latest_us: int | NDArray[np.int64] | None = None,
) -> CheckedEvents:
    """Normalise the events of source ``name``.

    A request or label source must carry every entity key, another source at least one; ``keys`` are needed on top
    (those that views read it by). ``optional`` columns may be absent, and an optional key may be null where
    another key of the row is not. A row whose event time lies after ``latest_us`` (of all or of each row) is rejected.
    Raises InputError naming every column that is missing or of a type that cannot be used.
    """
    source = project.sources[name]
    carried = _carried_keys(table, name, project, keys)
    schema = normal_schema(project, name, carried)
    problems: list[str] = []
    missing = [field.name for field in schema if field.name not in table.column_names and field.name not in optional]
    if missing:
        problems.append(f"column(s) {', '.join(missing)} are missing (got {', '.join(table.column_names)})")
    if not carried:
        problems.append(f"no entity key; at least one of {', '.join(project.entity_keys())} is needed")
    columns: dict[str, pa.ChunkedArray] = {}
    reasons = _Reasons(table.num_rows)
    for field in schema:
        if field.name not in table.column_names:
            continue
        raw = table.column(field.name)
        try:
            if field.name == source.event_time:
                columns[field.name] = _event_time(raw, source, latest_us, reasons)
            else:
                columns[field.name] = _column(raw, field, reasons)
        except ValueError as error:
            problems.append(f"column {field.name!r} {error}")
    if problems:
        raise InputError(f"{name}: " + "; ".join(problems))
    needed = [key for key in carried if key not in optional]
    for required in (*needed, source.event_time, source.event_id):
        if required in columns and columns[required].null_count:
            reasons.add(pc.is_null(columns[required]), f"{required} is missing")
    present = [columns[key] for key in carried if key in columns]
    if not needed and all(column.null_count for column in present):
        nothing = reduce(pc.and_, (pc.is_null(column) for column in present), pa.scalar(True))
        reasons.add(nothing, f"{' or '.join(carried)} is missing")
    normal = pa.table(columns)
    return reasons.split(normal, table)


def _carried_keys(table: pa.Table, name: str, project: ModelProject, keys: Collection[str]) -> tuple[str, ...]:
    every = name in (project.request, project.label.source)
    return tuple(key for key in project.entity_keys() if every or key in keys or key in table.column_names)


class _Reasons:
    """Why rows are rejected; the first reason of a row stays."""

    def __init__(self, n_rows: int) -> None:
        self._codes = np.zeros(n_rows, dtype=np.int16)
        self._texts: list[str] = []

    def add(self, rows: pa.ChunkedArray | pa.Array, text: str) -> None:
        mask = np.asarray(pc.fill_null(rows, False), dtype=bool)
        if mask.any():
            self._texts.append(text)
            self._codes[mask & (self._codes == 0)] = len(self._texts)

    def split(self, normal: pa.Table, raw: pa.Table) -> CheckedEvents:
        reason_type = pa.field("reason", pa.string())
        if not self._texts:
            empty = raw.slice(0, 0)
            if "reason" not in empty.column_names:
                empty = empty.append_column(reason_type, pa.array([], pa.string()))
            return CheckedEvents(normal, empty)
        bad = self._codes > 0
        rejected = raw.filter(pa.array(bad))
        texts = np.array(["", *self._texts], dtype=object)[self._codes[bad]]
        if "reason" in rejected.column_names:
            rejected = rejected.drop_columns(["reason"])
        return CheckedEvents(
            normal.filter(pa.array(~bad)), rejected.append_column(reason_type, pa.array(texts, pa.string()))
        )


def _event_time(
    raw: pa.ChunkedArray, source: Source, latest_us: int | NDArray[np.int64] | None, reasons: _Reasons
) -> pa.ChunkedArray:
    kind = raw.type
    if pa.types.is_dictionary(kind):
        raw, kind = raw.cast(kind.value_type), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        raw = _parsed_times(raw)
    elif pa.types.is_date(kind):
        raw = raw.cast(pa.timestamp("us"))
    elif not pa.types.is_timestamp(kind):
        raise ValueError(f"must be a time (got {kind}); a timestamp or ISO 8601 text")
    if raw.type.tz is None:
        if source.timezone is None:
            raise ValueError("has no time zone; declare one for the source, such as 'timezone: UTC'")
        raw = raw.cast(pa.timestamp("us"), safe=False)
        # A local time that happens twice or never (change of clocks) is read as the earlier one.
        raw = pc.assume_timezone(raw, source.timezone, ambiguous="earliest", nonexistent="earliest")
    times = raw.cast(EVENT_TIME_TYPE, safe=False)
    micros = times.cast(pa.int64())
    out = pc.or_(pc.less(micros, EARLIEST_US), pc.greater_equal(micros, LATEST_US))
    reasons.add(out, "event time is before 1970 or after 2199")
    if latest_us is not None:
        latest = pa.array(latest_us) if isinstance(latest_us, np.ndarray) else latest_us
        reasons.add(pc.greater(micros, latest), "event time lies more than an hour ahead of the clock")
    return times


def _parsed_times(raw: pa.ChunkedArray) -> pa.ChunkedArray:
    for target in (EVENT_TIME_TYPE, pa.timestamp("us")):
        try:
            return raw.cast(target)
        except pa.ArrowInvalid:
            continue
    raise ValueError("holds text that is no time; write 2018-06-04T12:30:00Z")


def _column(raw: pa.ChunkedArray, field: pa.Field, reasons: _Reasons) -> pa.ChunkedArray:
    """Cast where nothing is lost; a single value that does not fit rejects its row, a wrong type the file."""
    kind, target = raw.type, field.type
    if pa.types.is_dictionary(kind):
        raw, kind = raw.cast(kind.value_type), kind.value_type
    if pa.types.is_null(kind):
        return raw.cast(target)
    if pa.types.is_decimal(kind):
        raw, kind = raw.cast(pa.float64()), pa.float64()
    if pa.types.is_string(target):
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
            raise ValueError(f"must be text (got {kind})")
        return raw.cast(target)
    if pa.types.is_boolean(target):
        return _booleans(raw, field.name, reasons)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise ValueError(f"must be {target} (got {kind})")
    if pa.types.is_boolean(kind):
        raw, kind = raw.cast(pa.int8()), pa.int8()
    if pa.types.is_floating(kind):
        raw = raw.cast(pa.float64())
        reasons.add(pc.is_inf(raw), f"{field.name} is infinite")
        raw = pc.if_else(pc.is_finite(raw), raw, pa.scalar(None, pa.float64()))
    if pa.types.is_floating(target):
        narrow = raw.cast(target, safe=False)
        if target == pa.float32():
            reasons.add(pc.is_inf(narrow), f"{field.name} does not fit float32")
            narrow = pc.if_else(pc.is_finite(narrow), narrow, pa.scalar(None, target))
        return narrow
    return _integers(raw, field, reasons)


def _integers(raw: pa.ChunkedArray, field: pa.Field, reasons: _Reasons) -> pa.ChunkedArray:
    target = field.type
    if raw.type == target:
        return raw
    limits = np.iinfo(target.to_pandas_dtype())
    if pa.types.is_floating(raw.type):
        fits = pc.and_(
            pc.equal(raw, pc.floor(raw)),
            pc.and_(pc.greater_equal(raw, float(limits.min)), pc.less(raw, float(limits.max) + 1.0)),
        )
    elif pa.types.is_uint64(raw.type):
        fits = pc.less_equal(raw, pa.scalar(int(limits.max), pa.uint64()))
    else:
        wide = raw.cast(pa.int64())
        fits = pc.and_(pc.greater_equal(wide, int(limits.min)), pc.less_equal(wide, int(limits.max)))
    reasons.add(pc.invert(fits), f"{field.name} does not fit {target}")
    return pc.if_else(fits, raw, pa.scalar(None, raw.type)).cast(target)


def _booleans(raw: pa.ChunkedArray, name: str, reasons: _Reasons) -> pa.ChunkedArray:
    if pa.types.is_boolean(raw.type):
        return raw
    if not (pa.types.is_integer(raw.type) or pa.types.is_floating(raw.type)):
        raise ValueError(f"must be bool, or 0 and 1 (got {raw.type})")
    numbers = raw.cast(pa.float64())
    numbers = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    fits = pc.or_(pc.equal(numbers, 0.0), pc.equal(numbers, 1.0))
    reasons.add(pc.invert(fits), f"{name} is neither 0 nor 1")
    return pc.equal(numbers, 1.0)
