"""The stream engine over files: events pass through the worker's kernel in micro-batches, in order of event time,
and each row is read by the reader's merge when its time has come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidewheel.errors import InputError
from tidewheel.features.batches import keyed_events, state_columns
from tidewheel.features.declaration import BatchView, FeatureSet, RequestView, WindowedView
from tidewheel.features.events import OFFSET_COLUMN, normal_schema
from tidewheel.features.kernel import ID, TIME, KeyedEvents, merged_states
from tidewheel.features.keys import entity_keys
from tidewheel.features.merge import OwnEvents, batch_values, known_events, windowed_values
from tidewheel.features.reader import own_events
from tidewheel.features.rows import (
    Values,
    apply_defaults,
    normalised_rows,
    request_arrays,
    run_request_views,
    with_features,
)
from tidewheel.features.sources import normalised_batches, source_files
from tidewheel.spec.project import ModelProject

BATCH_EVENTS = 50_000

Ints = NDArray[np.int64]


def compute_by_stream(
    features: FeatureSet,
    project: ModelProject,
    rows: pa.Table,
    sources: Mapping[str, Path],
    progress: Callable[[int, int], None] | None = None,
    batch_events: int = BATCH_EVENTS,
) -> pa.Table:
    """``rows``, their order and columns, and one column per feature as of each row's event time.

    ``progress(done, total)`` counts views. Raises InputError where a row or a file cannot be used.
    """
    normal = normalised_rows(rows, project, features)
    arrays = request_arrays(normal, features)
    t_us = normal.column(features.request.event_time).cast(pa.int64()).to_numpy()
    views = [view for view in features.views if not isinstance(view, RequestView)]
    tables = {
        name: _source_table(name, project, features, sources) for name in dict.fromkeys(view.source for view in views)
    }
    found: dict[str, Values] = {}
    for done, view in enumerate(views):
        if progress:
            progress(done, len(views))
        values = _replay_view(view, features, tables[view.source], arrays, t_us, batch_events)
        for index, name in enumerate(view.feature_names):
            found[name] = apply_defaults(values[:, index], features.defaults[features.names.index(name)])
    if progress:
        progress(len(views), len(views))
    run_request_views(features, found, arrays)
    return with_features(rows, features, found)


def _source_table(name: str, project: ModelProject, features: FeatureSet, sources: Mapping[str, Path]) -> pa.Table:
    """All events of a source, in order of arrival, with the columns that views read."""
    if name not in sources:
        raise InputError(f"source {name!r} has no data; give it with --source {name}=PATH")
    keys = features.keys_of(name)
    wanted = {column for state in features.states if state.source == name for column in state_columns(state)}
    pieces = [normal_schema(project, name, keys).empty_table().append_column(OFFSET_COLUMN, pa.array([], pa.int64()))]
    pieces += list(normalised_batches(source_files(sources[name]), name, project, keys))
    table = pa.concat_tables(pieces, promote_options="default").sort_by(OFFSET_COLUMN)
    return table.select([column for column in table.column_names if column in wanted])


def _replay_view(
    view: WindowedView | BatchView,
    features: FeatureSet,
    events: pa.Table,
    arrays: Mapping[str, NDArray[Any]],
    t_us: Ints,
    batch_events: int,
) -> Values:
    arrived = keyed_events(view.state, events, np.arange(events.num_rows))
    keyed = _in_time_order(arrived, first=view.kind == "windowed")
    place = {key: code for code, key in enumerate(keyed.keys)}
    asked = entity_keys(view.state.keys, [arrays[column] for column in view.keys])
    codes = np.array([place.setdefault(key, len(place)) for key in asked], dtype=np.int64)
    states: list[bytes | None] = [None] * len(place)
    own, apart_us = None, 0
    if isinstance(view, WindowedView) and view.own_event != "as any":
        own, apart_us = _own_events(own_events(view, features, arrays, t_us), keyed, codes, len(place), t_us)
    values = np.full((len(t_us), len(view.feature_names)), np.nan)
    order = np.argsort(t_us, kind="stable")
    done = 0
    if len(keyed.records):
        done = int(np.searchsorted(t_us[order], keyed.records[0, TIME], side="left"))
        for first in range(0, done, batch_events):  # before the first event no state holds anything
            rows = order[first : min(first + batch_events, done)]
            nothing = np.zeros(len(rows), dtype=np.int64)
            values[rows] = _read(view, [None], nothing, t_us[rows], own, rows)
    for start, stop, span_us, until_us in _micro_batches(keyed.records[:, TIME], batch_events):
        _take(view, states, keyed, start, stop, span_us + apart_us)
        upto = len(order) if until_us is None else int(np.searchsorted(t_us[order], until_us, side="right"))
        for first in range(done, upto, batch_events):
            rows = order[first : min(first + batch_events, upto)]
            entities, entity_of = np.unique(codes[rows], return_inverse=True)
            blobs = [states[entity] for entity in entities]
            values[rows] = _read(view, blobs, entity_of.astype(np.int64), t_us[rows], own, rows)
        done = max(done, upto)
    return values


def _take(
    view: WindowedView | BatchView, states: list[bytes | None], keyed: KeyedEvents, start: int, stop: int, span_us: int
) -> None:
    """Bring the touched states up to date; requests of this batch, or their own events, may be ``span_us`` older than
    its newest event."""
    touched, codes = np.unique(keyed.codes[start:stop], return_inverse=True)
    # The log is replayed in order of time, so where an event stands is its place in that order.
    batch = KeyedEvents([b""] * len(touched), codes.astype(np.int64), keyed.records[start:stop], np.arange(start, stop))
    merged = merged_states(view.state, [states[entity] for entity in touched], batch, span_us, stop - start)
    for entity, blob in zip(touched, merged.blobs, strict=True):
        states[entity] = blob


def _read(
    view: WindowedView | BatchView,
    blobs: list[bytes | None],
    entity_of: Ints,
    t_us: Ints,
    own: OwnEvents | None,
    rows: Ints,
) -> Values:
    if isinstance(view, BatchView):
        return batch_values(view, blobs, entity_of, t_us)
    return windowed_values(view, blobs, entity_of, t_us, None if own is None else own.taken(rows))


def _own_events(own: OwnEvents, keyed: KeyedEvents, codes: Ints, n_entities: int, t_us: Ints) -> tuple[OwnEvents, int]:
    """Own events with what all of history knows of them, and how far before its request one was recorded at most."""
    order = np.argsort(keyed.codes, kind="stable")
    counts = np.bincount(keyed.codes, minlength=n_entities)
    came, came_us = known_events(keyed.records[order], counts, codes, own)
    apart_us = int((t_us - came_us)[came].max()) if came.any() else 0
    return OwnEvents(own.records, own.known_id, came), apart_us


def _in_time_order(keyed: KeyedEvents, *, first: bool) -> KeyedEvents:
    """By event time; of a repeated id the first arrival stays, whatever its time (windowed views)."""
    codes, records = keyed.codes, keyed.records
    if first:
        order = np.lexsort((records[:, ID], codes))
        repeats = (codes[order][1:] == codes[order][:-1]) & (records[order, ID][1:] == records[order, ID][:-1])
        kept = np.sort(order[np.concatenate([[True], ~repeats])]) if len(order) else order
        codes, records = codes[kept], records[kept]
    order = np.argsort(records[:, TIME], kind="stable")
    return KeyedEvents(keyed.keys, codes[order], records[order], np.arange(len(order)))


def _micro_batches(times_us: Ints, size: int) -> Iterator[tuple[int, int, int, int | None]]:
    """(start, stop, span in us, time up to which rows can be answered; None after the last)."""
    start, before = 0, int(times_us[0]) if len(times_us) else 0
    while start < len(times_us):
        stop = int(np.searchsorted(times_us, times_us[min(start + size, len(times_us)) - 1], side="right"))
        until = int(times_us[stop - 1])
        yield start, stop, until - before, None if stop == len(times_us) else until
        start, before = stop, until
    if not len(times_us):
        yield 0, 0, 0, None
