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
from tidewheel.features.kernel import KeyedEvents, make_records
from tidewheel.features.keys import key_bytes
from tidewheel.features.rows import column_array


def state_columns(state: StateView) -> tuple[str, ...]:
    """Columns of the source that a state is made from."""
    names = [state.entity_key, state.event_time, *(column for column, _ in state.columns)]
    names += [column for one in state.filters for column, _ in one]
    if state.kind == "windowed" and state.event_id is not None:
        names.append(state.event_id)
    return tuple(dict.fromkeys(names))


def keyed_events(state: StateView, events: pa.Table) -> KeyedEvents:
    """Events of one state, in their order; an event without this entity's key is not about it and drops out."""
    if state.entity_key not in events.column_names:
        return KeyedEvents([], np.zeros(0, dtype=np.int64), np.zeros((0, 3 + len(state.columns)), dtype=np.int64))
    key = events.column(state.entity_key)
    if key.null_count:
        events = events.filter(pc.is_valid(key))
        key = events.column(state.entity_key)
    for needed in (state.event_time, state.event_id if state.kind == "windowed" else None):
        if needed is not None and events.column(needed).null_count:
            raise ValueError(f"{needed} is missing")
    encoded = key.combine_chunks().dictionary_encode() if len(key) else pa.array([], key.type).dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    keys = key_bytes(np.array(encoded.dictionary.to_pylist(), dtype=object if state.key_type == "string" else np.int64),
                     state.key_type)  # fmt: skip
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    names = [column for column, _ in state.columns] + [column for one in state.filters for column, _ in one]
    columns = {name: column_array(events.column(name)) for name in dict.fromkeys(names)}
    times_us = events.column(state.event_time).cast(pa.int64()).to_numpy()
    ids = text_array(events.column(state.event_id)) if state.kind == "windowed" and state.event_id else None
    return KeyedEvents(keys, codes, make_records(state, times_us, ids, columns))


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
