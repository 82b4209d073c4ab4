"""The stream kernel: a micro-batch of events into the states of many entities at once. NumPy only.

A state is one bytes value of little-endian 64-bit fields: a header, then records sorted by time and then id, none
twice, then for precision hop the tiles (``tiles.py``).

    position | dropped_us | n_records | asked_us
    time (int64 us) | event id hash (int64) | filter bits, null bits << 32 | one field per column

``position``: every event of the entity whose offset is smaller is in the state, and is skipped when it comes again.
``dropped_us``: the newest event that is no record any more. ``asked_us`` (hop): tiles answer requests of this time
and later. A column is a float64, NaN for null, or for integers and text an int64 with a null bit.

Exact keeps the newest ``retention_us``, but at most ``capacity`` events; hop keeps what is needed to tell duplicates
and to read up to the microsecond, and everything else in tiles. A state depends on the events that came, not on how
they were cut into batches; of one event id (windowed) the first arrival stays, of one time (batch rows) the last.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewheel.features.declaration import Filter, StateView
from tidewheel.features.duplicates import first_arrivals, last_arrivals
from tidewheel.features.keys import UInt64, hashed_ids
from tidewheel.features.partials import NEVER_US
from tidewheel.features.record_events import BITS, COLUMNS, ID, MAX_FILTERS, TIME, Records
from tidewheel.features.spans import Bools, Ints
from tidewheel.features.tile_ring import merged_tiles
from tidewheel.features.tiles import Tiles

__all__ = ["BITS", "COLUMNS", "HEADER", "ID", "TIME", "KeyedEvents", "MergedStates", "Records", "make_records",
           "merged_states", "parsed", "positions"]  # fmt: skip

POSITION, DROPPED, RAW, ASKED, HEADER = 0, 1, 2, 3, 4  # positions in the header, and its length
_NEW = np.array([0, NEVER_US, 0, NEVER_US], dtype="<i8").tobytes()


@dataclass(frozen=True)
class KeyedEvents:
    """Events of one micro-batch in order of arrival: ``codes[i]`` is the entity of event i among ``keys``."""

    keys: list[bytes]
    codes: Ints
    records: Records  # int64 [n, 3 + n_columns]
    offsets: Ints  # [n], where each stands in its partition of the log


def make_records(
    state: StateView,
    times_us: Ints,
    ids: Any,
    columns: Mapping[str, NDArray[Any]],
    nulls: Mapping[str, Bools] | None = None,
    hashed: UInt64 | None = None,
) -> Records:
    """Records of events; ``columns`` holds the state's columns and those of its filters, ``nulls`` says where one that
    cannot say so itself (not float64, not objects) is null. Rows of a batch view are told apart by their time.
    ``hashed`` are the ids' hashes where they are known."""
    n = len(times_us)
    nulls = nulls or {}
    records = np.empty((n, COLUMNS + len(state.columns)), dtype=np.int64)
    records[:, TIME] = times_us
    if state.kind == "windowed":
        records[:, ID] = (hashed_ids(ids) if hashed is None else hashed).view(np.int64)
        records[:, BITS] = _filter_bits(state.filters, columns, nulls, n)
    else:
        records[:, ID] = times_us
        records[:, BITS] = 0
    for index, (column, kind) in enumerate(state.columns):
        field = records[:, COLUMNS + index]
        if not state.integers[index]:
            field[:] = (columns[column].astype(np.float64) + 0.0).view(np.int64)  # -0.0 becomes 0.0
            continue
        field[:], null = _integers(columns[column], kind)
        null = null | nulls[column] if column in nulls else null
        records[:, BITS] |= null.astype(np.int64) << (MAX_FILTERS + index)
        field[null] = 0
    return records


def _integers(values: NDArray[Any], kind: str) -> tuple[Ints, Bools]:
    """Values as int64, text by its hash; and where they are null."""
    if kind == "string":
        null = np.array([one is None for one in values], dtype=bool) if values.dtype == object else None
        hashes = hashed_ids(values).view(np.int64)
        return hashes, np.zeros(len(values), dtype=bool) if null is None else null
    if values.dtype.kind == "f":
        null = np.isnan(values)
        return np.where(null, 0.0, values).astype(np.int64), null
    return values.astype(np.int64), np.zeros(len(values), dtype=bool)


def _filter_bits(
    filters: Sequence[Filter], columns: Mapping[str, NDArray[Any]], nulls: Mapping[str, Bools], n: int
) -> Ints:
    """Bit i says that the event passes filter i. A null never equals."""
    bits = np.zeros(n, dtype=np.int64)
    for index, one in enumerate(filters):
        passes = np.ones(n, dtype=bool)
        for column, value in one:
            passes &= np.asarray(columns[column] == value, dtype=bool)
            if column in nulls:
                passes &= ~nulls[column]
        bits |= passes.astype(np.int64) << index
    return bits


@dataclass(frozen=True)
class States:
    """Many states taken apart: headers [n, 4], and their records and tiles on end with how many each has."""

    headers: Ints
    records: Records
    counts: Ints
    tiles: Tiles
    tile_counts: Ints


def parsed(state: StateView, blobs: Sequence[bytes | None]) -> States:
    """States of entities; one that does not exist is empty."""
    width, tile_width = COLUMNS + len(state.columns), state.tiles.width if state.tiles else 1
    if len(blobs) == 1:
        words = np.frombuffer(blobs[0] or _NEW, dtype="<i8")
        end = HEADER + int(words[RAW]) * width
        tiles = words[end:].reshape(-1, tile_width)
        return States(
            words[None, :HEADER], words[HEADER:end].reshape(-1, width), words[RAW : RAW + 1],
            tiles, np.array([len(tiles)], dtype=np.int64),
        )  # fmt: skip
    start = 8 * HEADER
    whole = [blob or _NEW for blob in blobs]
    headers = np.frombuffer(b"".join([blob[:start] for blob in whole]), dtype="<i8").reshape(-1, HEADER)
    counts = headers[:, RAW]
    if state.tiles is None:
        records = b"".join([memoryview(blob)[start:] for blob in blobs if blob])
        tiles, tile_counts = np.zeros((0, 1), dtype=np.int64), np.zeros(len(blobs), dtype=np.int64)
    else:
        ends = (start + counts * (8 * width)).tolist()
        records = b"".join([blob[start:end] for blob, end in zip(whole, ends, strict=True)])
        rest = [blob[end:] for blob, end in zip(whole, ends, strict=True)]
        tiles = np.frombuffer(b"".join(rest), dtype="<i8").reshape(-1, tile_width)
        tile_counts = np.array([len(one) for one in rest], dtype=np.int64) // (8 * tile_width)
    return States(headers, np.frombuffer(records, dtype="<i8").reshape(-1, width), counts, tiles, tile_counts)


def positions(blobs: Sequence[bytes | None]) -> Ints:
    """int64 [n]: the position each state includes, 0 where there is none."""
    return np.array([int.from_bytes(blob[:8], "little") if blob else 0 for blob in blobs], dtype=np.int64)


@dataclass(frozen=True)
class MergedStates:
    """New states, parallel to the entities that were given."""

    blobs: list[bytes]
    positions: Ints
    newest_us: Ints


def merged_states(
    state: StateView, old: Sequence[bytes | None], new: KeyedEvents, slack_us: int = 0, slack_events: int = 0
) -> MergedStates:
    """New state per entity of ``new.keys``; ``old`` runs parallel to the keys.

    ``slack_us`` and ``slack_events`` are kept on top, for requests that are so much older than the newest event.
    """
    held = parsed(state, old)
    n_entities = len(old)
    ends = np.cumsum(held.counts)
    has_old = held.counts > 0
    newest = np.full(n_entities, NEVER_US)
    newest[has_old] = held.records[ends[has_old] - 1, TIME]
    reached = held.headers[:, POSITION].copy()
    np.maximum.at(reached, new.codes, new.offsets + 1)
    dropped = held.headers[:, DROPPED].copy()
    fresh = new.offsets >= held.headers[new.codes, POSITION]
    codes, records = new.codes[fresh], new.records[fresh]
    old_entities = np.repeat(np.arange(n_entities), held.counts)
    old_records = held.records
    if state.kind == "windowed":
        stays = first_arrivals(state, held.records[:, :2], old_entities, records[:, :2], codes, newest, dropped)
        codes, records = codes[stays], records[stays]
    else:
        old_records, old_entities, records, codes = last_arrivals(held.records, old_entities, records, codes)
    np.maximum.at(newest, codes, records[:, TIME])
    entities = np.concatenate([old_entities, codes])
    merged = np.concatenate([old_records, records])
    order = _in_order(entities, merged)
    entities, merged = entities[order], merged[order]
    tiles, tile_counts, asked = held.tiles, held.tile_counts, held.headers[:, ASKED]
    if state.tiles is None:
        keep_from = newest - (state.retention_us + slack_us) + 1
        keep_from = np.maximum(keep_from, dropped + 1)
        keep_from = np.maximum(keep_from, _capacity_from(merged[:, TIME], entities, n_entities, state, slack_events))
    else:
        asked = np.maximum(asked, newest - state.tiles.lateness_us - slack_us)
        finest = state.tiles.levels[0].hop_us
        needed = np.minimum(asked, newest - state.dedup_us)
        keep_from = (needed - 1) // finest * finest + 1
        tiles, tile_counts = merged_tiles(
            state.tiles, state.integers, held.tiles, held.tile_counts, records, codes, asked
        )
    kept = merged[:, TIME] >= keep_from[entities]
    if not kept.all():
        np.maximum.at(dropped, entities[~kept], merged[~kept, TIME])
        entities, merged = entities[kept], merged[kept]
    counts = np.bincount(entities, minlength=n_entities)
    headers = np.empty((n_entities, HEADER), dtype="<i8")
    for field, values in ((POSITION, reached), (DROPPED, dropped), (RAW, counts), (ASKED, asked)):
        headers[:, field] = values
    blobs = _joined(headers, merged, counts, tiles, tile_counts)
    return MergedStates(blobs, reached, newest)


def _in_order(entities: Ints, records: Records) -> Ints:
    """The order by entity, time and id."""
    times = records[:, TIME]
    if not len(times):
        return np.zeros(0, dtype=np.int64)
    low = int(times.min())
    span = int(times.max()) - low + 1
    if span * (int(entities.max()) + 1) >= 2**62:
        return np.lexsort((records[:, ID], times, entities))
    place = entities * span + (times - low)
    order = np.argsort(place, kind="stable")  # two sorted runs, mostly
    place = place[order]
    same = place[1:] == place[:-1]
    if same.any():
        tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
        rows = order[tied]
        order[tied] = rows[np.lexsort((records[rows, ID], place[tied]))]
    return order


def _capacity_from(times: Ints, entities: Ints, n_entities: int, state: StateView, slack_events: int) -> Ints:
    """Where an entity has more events than may be kept: just after the newest of those that are too many."""
    capacity = state.capacity + slack_events
    counts = np.bincount(entities, minlength=n_entities)
    keep_from = np.full(n_entities, NEVER_US)
    over = counts > capacity
    if over.any():
        ends = np.cumsum(counts)
        keep_from[over] = times[ends[over] - capacity - 1] + 1
    return keep_from


def _joined(headers: Ints, records: Records, counts: Ints, tiles: Tiles, tile_counts: Ints) -> list[bytes]:
    heads, data = headers.tobytes(), np.ascontiguousarray(records, dtype="<i8").tobytes()
    size = 8 * HEADER
    bounds = [0, *(np.cumsum(counts) * (8 * records.shape[1])).tolist()]
    pairs = list(itertools.pairwise(bounds))
    if not len(tiles):
        return [heads[i * size : (i + 1) * size] + data[start:stop] for i, (start, stop) in enumerate(pairs)]
    stored = memoryview(np.ascontiguousarray(tiles, dtype="<i8").tobytes())
    tile_bounds = [0, *(np.cumsum(tile_counts) * (8 * tiles.shape[1])).tolist()]
    return [
        b"".join((heads[i * size : (i + 1) * size], data[start:stop], stored[tile_bounds[i] : tile_bounds[i + 1]]))
        for i, (start, stop) in enumerate(pairs)
    ]
