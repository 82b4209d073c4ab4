"""Normalised events (Arrow) -> what the kernel takes (NumPy): entity codes and records.

Used by the stream worker and the replay; the model server never has Arrow tables of events.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidewheel.features.declaration import StateView
from tidewheel.features.kernel import COLUMNS, KeyedEvents, make_records
from tidewheel.features.keys import entity_keys
from tidewheel.features.rows import column_array, filled_integers


def state_columns(state: StateView) -> tuple[str, ...]:
    """Columns of the source that a state is made from."""
    names = [*(column for column, _ in state.keys), state.event_time, *(column for column, _ in state.columns)]
    names += [column for one in state.filters for column, _ in one]
    if state.kind == "windowed" and state.event_id is not None:
        names.append(state.event_id)
    return tuple(dict.fromkeys(names))


def keyed_events(state: StateView, events: pa.Table, offsets: NDArray[np.int64]) -> KeyedEvents:
    """Events of one state, in their order; an event without this entity's whole key is not about it and drops out."""
    key_columns = [column for column, _ in state.keys]
    if any(column not in events.column_names for column in key_columns):
        nothing = np.zeros(0, dtype=np.int64)
        return KeyedEvents([], nothing, np.zeros((0, COLUMNS + len(state.columns)), dtype=np.int64), nothing)
    about = np.ones(events.num_rows, dtype=bool)
    for column in key_columns:
        if events.column(column).null_count:
            about &= np.asarray(pc.is_valid(events.column(column)), dtype=bool)
    if not about.all():
        events, offsets = events.filter(pa.array(about)), offsets[about]
    for needed in (state.event_time, state.event_id if state.kind == "windowed" else None):
        if needed is not None and events.column(needed).null_count:
            raise ValueError(f"{needed} is missing")
    keys, codes = _entities(state, events)
    names = [column for column, _ in state.columns] + [column for one in state.filters for column, _ in one]
    columns: dict[str, NDArray[Any]] = {}
    nulls: dict[str, NDArray[np.bool_]] = {}
    for name in dict.fromkeys(names):
        columns[name] = _exact_array(events.column(name), name, nulls)
    times_us = events.column(state.event_time).cast(pa.int64()).to_numpy()
    ids = text_array(events.column(state.event_id)) if state.kind == "windowed" and state.event_id else None
    return KeyedEvents(keys, codes, make_records(state, times_us, ids, columns, nulls), offsets)


def _exact_array(column: pa.ChunkedArray, name: str, nulls: dict[str, NDArray[np.bool_]]) -> NDArray[Any]:
    """A column as NumPy. Integers and bools with nulls keep their type, and ``nulls`` says where they are."""
    kind = column.type
    if not column.null_count or not (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        return column_array(column)
    values, nulls[name] = filled_integers(column)
    return values


def _entities(state: StateView, events: pa.Table) -> tuple[list[bytes], NDArray[np.int64]]:
    """Different keys, and which of them each event has."""
    codes = np.zeros(events.num_rows, dtype=np.int64)
    columns: list[NDArray[Any]] = []
    for column, kind in state.keys:
        values = events.column(column)
        encoded = pa.concat_arrays([*values.chunks, pa.array([], values.type)]).dictionary_encode()
        mine = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        distinct = np.array(encoded.dictionary.to_pylist(), dtype=object if kind == "string" else np.int64)
        if not columns:
            codes, columns = mine, [distinct]
            continue
        pairs, codes = np.unique(codes * max(len(distinct), 1) + mine, return_inverse=True)
        before, this = np.divmod(pairs, max(len(distinct), 1))
        columns = [*(one[before] for one in columns), distinct[this]]
    return entity_keys(state.keys, columns), codes.astype(np.int64)


def text_array(column: pa.ChunkedArray) -> NDArray[Any]:
    """UTF-8 bytes (dtype S) of a text column without nulls, straight from Arrow's buffers."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], pa.string())
    if not len(array):
        return np.zeros(0, dtype="S1")
    array = array.cast(pa.string())
    _, offset_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int32)[array.offset : array.offset + len(array) + 1]
    lengths = np.diff(offsets)
    width = max(int(lengths.max()), 1)
    data = np.frombuffer(data_buffer, dtype=np.uint8) if data_buffer and data_buffer.size else np.zeros(1, np.uint8)
    place = np.arange(width)
    index = np.minimum(offsets[:-1, None] + place, len(data) - 1)
    return np.where(place < lengths[:, None], data[index], np.uint8(0)).view(f"S{width}")[:, 0]
