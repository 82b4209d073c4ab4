"""From the event log to online state and to the lake: each event taken exactly once, whatever is killed and when.

A state and its position in the log are written in one transaction; a part of the lake is named by the offsets it
holds. So whoever starts again goes on where the last whole write ended. A batch that cannot be used is halved until
the single event at fault is found; that event is set aside with the reason and never stops the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tidewheel.clock import SECOND_US, Clock
from tidewheel.errors import Unavailable
from tidewheel.features.batches import keyed_events, state_columns
from tidewheel.features.declaration import BatchView, StateView, WindowedView
from tidewheel.features.events import OFFSET_COLUMN, normal_schema
from tidewheel.features.kernel import TIME, merged_states
from tidewheel.features.lake import compact, drop_replaced, lake_end, write_parquet, write_part
from tidewheel.features.merge import published_values
from tidewheel.features.ports import EventLog, LogBatch, OnlineStore, Progress, StateRows, UnreadableEvents
from tidewheel.spec.project import ModelProject

HEARTBEAT_US = SECOND_US // 2
BATCH_ROWS = 65_536
PART_ROWS = 262_144
FLUSH_US = 2 * SECOND_US  # a growing log is written to the lake at least this often
QUIET_US = SECOND_US // 5  # and at once when it has stopped growing for this long
COMPACT_FILES = 64
KEEP_REPLACED_US = 60 * SECOND_US

# Called with (event name, fields): the worker logs them.
Tell = Callable[..., None]


class StateKeeper:
    """Keeps one view's state current with one partition of its source's log."""

    def __init__(
        self,
        view: WindowedView | BatchView,
        partition: int,
        log: EventLog,
        store: OnlineStore,
        clock: Clock,
        tell: Tell,
    ) -> None:
        self.view, self.state, self.partition = view, view.state, partition
        self._log, self._store, self._clock, self._tell = log, store, clock, tell
        self._columns = state_columns(view.state)
        self._limit = BATCH_ROWS
        told = store.progress([view.state]).get(view.state.state_id, {}).get(partition)
        self.progress = told or Progress(0, 0, 0, 0, 0)

    def step(self) -> int:
        """Take one micro-batch; how many offsets it had. Raises Unavailable where the store does not answer."""
        end = self._end()
        position = self.progress.position
        if position >= end:
            return 0
        try:
            batch = self._log.read(self.state.topic, self.partition, position, self._limit, self._columns)
            self._take(batch, end)
        except (Unavailable, OSError, MemoryError):
            raise
        except UnreadableEvents as error:
            self._skip(str(error), error.until or position + 1, end)
        except Exception as error:  # whatever is wrong with the events, others must pass
            if self._limit > 1:
                self._limit = max(1, min(self._limit, end - position) // 2)
                return 1
            self._skip(f"{type(error).__name__}: {error}", position + 1, end)
        else:
            self._limit = min(self._limit * 2, BATCH_ROWS)
        return self.progress.position - position

    def heartbeat(self) -> None:
        """Say that the worker is alive and how far it has come, where that was not said lately."""
        if self._clock.now_us() - self.progress.heartbeat_us >= HEARTBEAT_US:
            self._write(no_rows(self.state), self.progress.position, self.progress.watermark_us, self._end())

    def _end(self) -> int:
        return self._log.end(self.state.topic, self.partition)

    def _take(self, batch: LogBatch, end: int) -> None:
        keyed = keyed_events(self.state, batch.events, batch.offsets)
        rows = no_rows(self.state)
        if keyed.keys:
            (old,) = self._store.read([(self.state, keyed.keys)])
            merged = merged_states(self.state, old, keyed)
            published = published_values(self.view, merged.blobs, merged.newest_us)
            rows = StateRows(keyed.keys, merged.blobs, merged.positions, merged.newest_us, published)
        newest = int(keyed.records[:, TIME].max()) if len(keyed.records) else 0
        self._write(rows, batch.following, max(self.progress.watermark_us, newest), end)

    def _skip(self, reason: str, until: int, end: int) -> None:
        self._tell("events_skipped", topic=self.state.topic, state=self.state.state_id, partition=self.partition,
                   first=self.progress.position, until=until, reason=reason)  # fmt: skip
        self._write(no_rows(self.state), until, self.progress.watermark_us, end)

    def _write(self, rows: StateRows, position: int, watermark_us: int, end: int) -> None:
        now_us = self._clock.now_us()
        caught_up_at_us = now_us if position >= end else self.progress.caught_up_at_us
        progress = Progress(position, watermark_us, end, caught_up_at_us, now_us)
        self._store.write(self.state, self.partition, rows, progress)
        self.progress = progress


def no_rows(state: StateView) -> StateRows:
    """What a heartbeat writes."""
    nothing = np.zeros(0, dtype=np.int64)
    return StateRows([], [], nothing, nothing, np.zeros((0, len(state.published))))


@dataclass(frozen=True)
class LakePlace:
    """Where a source's events go."""

    source: str
    topic: str
    folder: Path
    rejected: Path


class LakeKeeper:
    """Writes one source's events to the lake, in order of arrival, with their offset. The only writer there."""

    def __init__(self, place: LakePlace, project: ModelProject, log: EventLog, clock: Clock, tell: Tell) -> None:
        self._place, self._project, self._log, self._clock, self._tell = place, project, log, clock, tell
        source = project.sources[place.source]
        self._event_time = source.event_time
        self._lateness_us = source.allowed_lateness_us
        self._limit = PART_ROWS
        self._since_us: int | None = None
        self._seen_end, self._grew_at_us = 0, 0
        self._watermark_us = 0
        self._n_parts = 0
        self.position = lake_end(place.folder)
        self.n_late = 0
        # A worker that was killed left the half-written files of its last part.
        for left in place.folder.glob(".part-*.tmp"):
            left.unlink(missing_ok=True)

    def step(self) -> int:
        """Write one part if it is time; how many events it took."""
        end, now_us = self._log.end(self._place.topic, 0), self._clock.monotonic_us()
        if end != self._seen_end:
            self._seen_end, self._grew_at_us = end, now_us
        if self.position >= end:
            self._since_us = None
            return 0
        if self._since_us is None:
            self._since_us = now_us
        quiet = now_us - self._grew_at_us >= QUIET_US
        if not quiet and end - self.position < PART_ROWS and now_us - self._since_us < FLUSH_US:
            return 0
        position = self.position
        self._flush(end)
        self._since_us = None
        return self.position - position

    def _flush(self, end: int) -> None:
        try:
            events = self._log.read(self._place.topic, 0, self.position, self._limit).events
            normal = self._normal(events)
            write_part(self._place.folder, self.position, normal, events.num_rows)
        except (Unavailable, OSError, MemoryError):
            raise
        except UnreadableEvents as error:
            self._reject(None, str(error), error.until or self.position + 1)
        except Exception as error:  # whatever is wrong with the events, others must pass
            if self._limit > 1:
                self._limit = max(1, min(self._limit, end - self.position) // 2)
                return
            self._reject(events, f"{type(error).__name__}: {error}", self.position + 1)
        else:
            self._count_late(normal)
            self.position += events.num_rows
            self._limit = min(self._limit * 2, PART_ROWS)
            self._n_parts += 1
            if self._n_parts % COMPACT_FILES == 0:
                compact(self._place.folder, PART_ROWS, COMPACT_FILES // 2)
            drop_replaced(self._place.folder, (self._clock.now_us() - KEEP_REPLACED_US) / SECOND_US)

    def _normal(self, events: pa.Table) -> pa.Table:
        """The declared columns in their types; raises where an event does not fit."""
        keys = [key for key in self._project.entity_keys() if key in events.column_names]
        schema = normal_schema(self._project, self._place.source, keys)
        missing = [name for name in schema.names if name not in events.column_names]
        if missing:
            raise ValueError(f"column(s) {', '.join(missing)} are missing")
        normal = events.select(schema.names).cast(schema)
        source = self._project.sources[self._place.source]
        for name in (source.event_time, source.event_id):
            if name is not None and normal.column(name).null_count:
                raise ValueError(f"{name} is missing")
        nulls = [normal.column(key).is_null().to_numpy() for key in keys]
        every = self._place.source in (self._project.request, self._project.label.source)
        lacking = (np.any if every else np.all)(nulls, axis=0) if nulls else np.ones(1, dtype=bool)
        if lacking.any():
            raise ValueError(f"{' or '.join(keys or self._project.entity_keys())} is missing")
        offsets = pa.array(np.arange(self.position, self.position + events.num_rows))
        return normal.append_column(OFFSET_COLUMN, offsets)

    def _count_late(self, events: pa.Table) -> None:
        times_us = events.column(self._event_time).cast(pa.int64()).to_numpy()
        if not len(times_us):
            return
        newest = np.maximum.accumulate(np.concatenate([[self._watermark_us], times_us]))
        self._watermark_us = int(newest[-1])
        if self._lateness_us is not None:
            n_late = int((times_us < newest[:-1] - self._lateness_us).sum())
            if n_late:
                self.n_late += n_late
                self._tell("late_events", source=self._place.source, n=n_late, total=self.n_late)

    def _reject(self, events: pa.Table | None, reason: str, until: int) -> None:
        """Set the events aside; an empty part says that these offsets were taken."""
        self._tell("events_rejected", source=self._place.source, first=self.position, until=until, reason=reason)
        name = f"worker-{self.position:020d}.parquet"
        n = 0 if events is None else events.num_rows
        if events is not None and n:
            kept = events.append_column("reason", pa.array([reason] * n, pa.string()))
            write_parquet(self._place.rejected / name, kept)
        empty = normal_schema(self._project, self._place.source, ()).empty_table()
        empty = empty.append_column(OFFSET_COLUMN, pa.array([], pa.int64()))
        write_part(self._place.folder, self.position, empty, until - self.position)
        self.position = until
