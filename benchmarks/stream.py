"""Online features: how many events a second one core takes in, and how long one read takes.

Ingest is the stream worker's own code from the event log to the SQLite store; the peer is a Python loop that keeps a
sorted list of events per entity and writes to no store. A read is everything from keys to the model's values of
one request; the peer fetches the same states from the same store and computes nothing.
"""

from __future__ import annotations

import struct
from bisect import insort
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.lines import Line
from benchmarks.measure import alternating, call_medians_us
from benchmarks.world import fill, many_payments, scratch, trained
from tidewheel.adapters.file_event_log import FileEventLog
from tidewheel.adapters.sqlite_store import SqliteOnlineStore
from tidewheel.clock import SystemClock
from tidewheel.features.batches import keyed_events, state_columns
from tidewheel.features.declaration import StateView, WindowedView
from tidewheel.features.kernel import merged_states
from tidewheel.features.keys import entity_keys
from tidewheel.features.reader import FeatureReader
from tidewheel.features.rows import request_arrays
from tidewheel.features.stream import BATCH_ROWS, StateKeeper

SIZES = {"full": (400_000, 3, (10, 500)), "tiny": (3_000, 1, (1, 20))}  # events, rounds, calls
LOOP = "Python loop over events, in memory"
_RECORD = struct.Struct("<qqqd")


def run(size: str) -> list[Line]:
    """Lines for ingest and for reads."""
    n_events, rounds, calls = SIZES[size]
    return [*_ingest(size, n_events, rounds), *_read(size, *calls)]


def _ingest(size: str, n_events: int, rounds: int) -> list[Line]:
    world = trained(size)
    view = next(v for v in world.features.views if isinstance(v, WindowedView) and v.source == "transactions")
    state = view.state
    folder, _ = many_payments(n_events)
    events = pq.read_table(folder)
    log = FileEventLog(scratch() / f"log-{n_events}")
    log.append(state.topic, events)
    needed = events.select(list(state_columns(state)))
    number = iter(range(1000))
    found = alternating(
        rounds,
        {
            "keeper": lambda: _keep(view, log, scratch() / f"ingest-{n_events}-{next(number)}.db"),
            "kernel": lambda: _kernel(state, needed),
            "loop": lambda: _loop(state, needed),
        },
    )
    rates = {name: n_events / usage.cpu_s for name, (usage, _) in found.items()}
    what, unit = f"take in {n_events:,} events, 30-day state", "events/s of CPU"
    return [
        Line(f"{what}: kernel alone", LOOP, rates["kernel"], rates["loop"], unit, rounds, higher_is_better=True),
        Line(f"{what}: log to store", LOOP, rates["keeper"], rates["loop"], unit, rounds, higher_is_better=True),
    ]


def _keep(view: WindowedView, log: FileEventLog, database: Any) -> None:
    store = SqliteOnlineStore(database)
    keeper = StateKeeper(view, 0, log, store, SystemClock(), lambda event, **fields: None)
    while keeper.step():
        pass
    store.close()


def _kernel(state: StateView, events: pa.Table) -> None:
    held: dict[bytes, bytes] = {}
    for start in range(0, len(events), BATCH_ROWS):
        piece = events.slice(start, BATCH_ROWS)
        keyed = keyed_events(state, piece, np.arange(start, start + len(piece)))
        merged = merged_states(state, [held.get(key) for key in keyed.keys], keyed)
        held.update(zip(keyed.keys, merged.blobs, strict=True))


def _loop(state: StateView, events: pa.Table) -> None:
    """The same states, event by event; like the kernel it hands over the bytes of those that a batch touched."""
    held: dict[int, list[tuple[int, int, int, float]]] = {}
    seen: set[tuple[int, str]] = set()
    stored: dict[int, bytes] = {}
    for start in range(0, len(events), BATCH_ROWS):
        piece, touched = events.slice(start, BATCH_ROWS), set()
        times = piece.column(state.event_time).cast(pa.int64()).to_pylist()
        names = (state.keys[0][0], state.event_id or "", "amount", "channel")
        for at_us, key, event_id, amount, channel in zip(
            times, *(piece.column(name).to_pylist() for name in names), strict=True
        ):
            if (key, event_id) in seen:
                continue
            seen.add((key, event_id))
            touched.add(key)
            mine = held.setdefault(key, [])
            insort(mine, (at_us, hash(event_id), channel == "online", amount))
            while mine[0][0] <= mine[-1][0] - state.retention_us:
                del mine[0]
        for key in touched:
            stored[key] = b"".join([_RECORD.pack(*event) for event in held[key]])


def _read(size: str, rounds: int, calls: int) -> list[Line]:
    world = trained(size)
    store = SqliteOnlineStore(world.home.online_db)
    fill(world.features, FileEventLog(world.home.event_log), store)
    reader = FeatureReader(world.features, store)
    arrays = request_arrays(world.requests, world.features)
    times = arrays[world.features.request.event_time].view(np.int64)
    n_asked = len(times)

    def asked(n: int) -> Callable[[int], Any]:
        starts = range(0, n_asked - n, n)
        cut = [({name: a[at : at + n] for name, a in arrays.items()}, times[at : at + n]) for at in starts]
        return lambda call: reader.read(*cut[call % len(cut)])

    states = world.features.states
    keys = {one.keys: entity_keys(one.keys, [arrays[column] for column, _ in one.keys]) for one in states}
    lookups = [[(one, [keys[one.keys][row]]) for one in states] for row in range(n_asked)]
    medians = call_medians_us(
        rounds,
        calls,
        {"one": asked(1), "many": asked(32), "bare": lambda call: store.read(lookups[call % n_asked])},
    )
    store.close()
    n, bare = rounds * calls, "bare reads of the same states"
    k, views = len(world.features.names), len(world.features.states)
    return [
        Line(f"read {k} features of {views} states, one request, p50", bare, medians["one"], medians["bare"], "us", n),
        Line("the same, of 32 requests together, each", bare, medians["many"] / 32, medians["bare"], "us", n),
    ]
