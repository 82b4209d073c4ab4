"""The stream kernel: a micro-batch of events into the states of many entities at once. NumPy only.

A state is one bytes value of little-endian 64-bit fields: a header, then records sorted by time and then id, none
twice.

    position | dropped_us | n_raw | 0
    time (int64 us) | event id hash (uint64) | filter bits (uint64) | one float64 per column, NaN for null

``position``: every event of the entity whose offset is smaller is in the state, and is skipped when it comes again.
It holds the events of the entity's newest ``retention_us``, counted from its own newest event, so it depends on
the events that came and not on how they were cut into batches or in which order they came; of one event id
(windowed) the first arrival stays, of one time (batch rows) the last.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewheel.features.declaration import Filter, StateView
from tidewheel.features.keys import hashed_ids

Records = NDArray[np.int64]

TIME, ID, BITS, COLUMNS = 0, 1, 2, 3  # positions of the fields in a record
POSITION, DROPPED, RAW, HEADER = 0, 1, 2, 4  # positions in the header, and its length


@dataclass(frozen=True)
class KeyedEvents:
    """Events of one micro-batch in order of arrival: ``codes[i]`` is the entity of event i among ``keys``."""

    keys: list[bytes]
    codes: NDArray[np.int64]
    records: Records  # int64 [n, 3 + n_columns]
    offsets: NDArray[np.int64]  # [n], where each stands in its partition of the log


def filter_bits(filters: Sequence[Filter], columns: Mapping[str, NDArray[Any]], n: int) -> NDArray[np.uint64]:
    """uint64 [n]: bit i says that the event passes filter i. A null never equals."""
    bits = np.zeros(n, dtype=np.uint64)
    for index, one in enumerate(filters):
        passes = np.ones(n, dtype=bool)
        for column, value in one:
            passes &= np.asarray(columns[column] == value, dtype=bool)
        bits |= passes.astype(np.uint64) << np.uint64(index)
    return bits


def make_records(
    state: StateView, times_us: NDArray[np.int64], ids: Any, columns: Mapping[str, NDArray[Any]]
) -> Records:
    """Records of events; ``columns`` holds the state's columns and those of its filters. Rows of a batch view are
    told apart by their time."""
    n = len(times_us)
    records = np.empty((n, COLUMNS + len(state.columns)), dtype=np.int64)
    records[:, TIME] = times_us
    if state.kind == "windowed":
        records[:, ID] = hashed_ids(ids).view(np.int64)
        records[:, BITS] = filter_bits(state.filters, columns, n).view(np.int64)
    else:
        records[:, ID] = times_us
        records[:, BITS] = 0
    for index, (column, _) in enumerate(state.columns):
        records[:, COLUMNS + index] = columns[column].astype(np.float64).view(np.int64)
    return records


def parsed(blobs: Sequence[bytes | None], width: int) -> tuple[Records, NDArray[np.int64]]:
    """Records of many states on end, and how many each has."""
    if len(blobs) == 1:
        blob = blobs[0]
        records = np.frombuffer(blob or b"", dtype="<i8")[HEADER if blob else 0 :].reshape(-1, width)
        return records, np.array([len(records)], dtype=np.int64)
    size, start = 8 * width, 8 * HEADER
    counts = np.array([(len(blob) - start) // size if blob else 0 for blob in blobs], dtype=np.int64)
    joined = b"".join([memoryview(blob)[start:] for blob in blobs if blob])
    return np.frombuffer(joined, dtype="<i8").reshape(-1, width), counts


def positions(blobs: Sequence[bytes | None]) -> NDArray[np.int64]:
    """int64 [n]: the position each state includes, 0 where there is none."""
    return np.array([int.from_bytes(blob[:8], "little") if blob else 0 for blob in blobs], dtype=np.int64)


@dataclass(frozen=True)
class MergedStates:
    """New states, parallel to the entities that were given."""

    blobs: list[bytes]
    positions: NDArray[np.int64]
    newest_us: NDArray[np.int64]


def merged_states(state: StateView, old: Sequence[bytes | None], new: KeyedEvents, slack_us: int = 0) -> MergedStates:
    """New state per entity of ``new.keys``; ``old`` runs parallel to the keys. ``slack_us`` is kept on top."""
    width = COLUMNS + len(state.columns)
    kept, counts = parsed(old, width)
    known = positions(old)
    fresh = new.offsets >= known[new.codes]
    reached = known.copy()
    np.maximum.at(reached, new.codes, new.offsets + 1)
    entities = np.concatenate([np.repeat(np.arange(len(old)), counts), new.codes[fresh]])
    records = np.concatenate([kept, new.records[fresh]])
    if state.kind == "windowed":
        records, entities = _first_arrivals(records, entities)
    else:
        records, entities = _last_arrivals(records, entities)
    order = np.lexsort((records[:, ID], records[:, TIME], entities))
    records, entities = records[order], entities[order]
    ends = np.searchsorted(entities, np.arange(len(old)), side="right")
    newest = records[np.maximum(ends - 1, 0), TIME]
    recent = records[:, TIME] > (newest - (state.retention_us + slack_us))[entities]
    if not recent.all():
        records, entities = records[recent], entities[recent]
        ends = np.searchsorted(entities, np.arange(len(old)), side="right")
    data = records.astype("<i8", copy=False).tobytes()
    bounds = [0, *(ends * (8 * width)).tolist()]
    headers = np.zeros((len(old), HEADER), dtype="<i8")
    headers[:, POSITION] = reached
    headers[:, RAW] = np.diff(ends, prepend=0)
    heads = headers.tobytes()
    blobs = [
        heads[number * 8 * HEADER : (number + 1) * 8 * HEADER] + data[start:stop]
        for number, (start, stop) in enumerate(itertools.pairwise(bounds))
    ]
    return MergedStates(blobs, reached, newest)


def _first_arrivals(records: Records, entities: NDArray[np.int64]) -> tuple[Records, NDArray[np.int64]]:
    order = np.lexsort((records[:, ID], entities))
    return _keep(records, entities, order, first=True)


def _last_arrivals(records: Records, entities: NDArray[np.int64]) -> tuple[Records, NDArray[np.int64]]:
    order = np.lexsort((records[:, TIME], entities))
    return _keep(records, entities, order, first=False)


def _keep(
    records: Records, entities: NDArray[np.int64], order: NDArray[np.int64], *, first: bool
) -> tuple[Records, NDArray[np.int64]]:
    """Drop all but the first (or last) of each run of equal (entity, id) in ``order``, which is stable."""
    repeats = (entities[order][1:] == entities[order][:-1]) & (records[order, ID][1:] == records[order, ID][:-1])
    if not repeats.any():
        return records, entities
    stays = np.ones(len(order), dtype=bool)
    if first:
        stays[1:] = ~repeats
    else:
        stays[:-1] = ~repeats
    rows = np.sort(order[stays])
    return records[rows], entities[rows]
