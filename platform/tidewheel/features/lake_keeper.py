"""From the event log to the lake: each event exactly once, and what is no event set aside once, with the reason.

A part of the lake is named by the offsets it holds, so whoever starts again goes on where the last whole part ended.
A lock per source and partition keeps a second writer out: its parts could be cut elsewhere and overlap.
"""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidewheel.clock import SECOND_US, Clock
from tidewheel.errors import Unavailable
from tidewheel.features.batches import text_array
from tidewheel.features.events import OFFSET_COLUMN, PARTITION_COLUMN, normal_schema
from tidewheel.features.keys import hashed_ids
from tidewheel.features.lake import compact, drop_replaced, lake_end, write_parquet, write_part
from tidewheel.features.ports import EventLog, LogBatch, RejectedEvent, UnreadableEvents
from tidewheel.features.sources import ID_HASH_COLUMN
from tidewheel.features.stream import Tell
from tidewheel.spec.project import ModelProject

PART_ROWS = 262_144
FLUSH_US = 2 * SECOND_US  # a growing log is written to the lake at least this often
QUIET_US = SECOND_US // 5  # and at once when it has stopped growing for this long
COMPACT_FILES = 64
KEEP_REPLACED_US = 60 * SECOND_US

# Called with (topic, partition, messages): sets them aside in the log's own way, too; the same ones may come twice.
DeadLetter = Callable[[str, int, Sequence[RejectedEvent]], None]


@dataclass(frozen=True)
class LakePlace:
    """Where the events of one partition of a source go."""

    source: str
    topic: str
    folder: Path
    rejected: Path
    partition: int = 0


class LakeKeeper:
    """Writes one partition of one source to the lake, in order of arrival. The only writer there while it has the
    lock."""

    def __init__(
        self,
        place: LakePlace,
        project: ModelProject,
        log: EventLog,
        clock: Clock,
        tell: Tell,
        dead_letter: DeadLetter | None = None,
    ) -> None:
        self.place, self._project, self._log, self._clock, self._tell = place, project, log, clock, tell
        self._dead_letter = dead_letter
        source = project.sources[place.source]
        self._event_time = source.event_time
        self._lateness_us = source.allowed_lateness_us
        self._limit = PART_ROWS
        self._since_us: int | None = None
        self._seen_end, self._grew_at_us = 0, 0
        self._watermark_us = 0
        self._n_parts = 0
        self._lock: int | None = None
        self.position = lake_end(place.folder, place.partition)
        self.n_late = 0
        self.n_rejected: Counter[str] = Counter()  # by reason, which is what is wrong and never a value

    def step(self) -> int:
        """Write one part if it is time; how many offsets it took. Raises Unavailable where the log does not answer."""
        if self._lock is None and not self._locked():
            return 0
        end, now_us = self._log.end(self.place.topic, self.place.partition), self._clock.monotonic_us()
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

    def close(self) -> None:
        """Let another writer in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _locked(self) -> bool:
        place = self.place
        place.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place.folder / f".lock-{place.partition:05d}", os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        self.position = lake_end(place.folder, place.partition)
        # A worker that was killed left the half-written files of its last part.
        for left in place.folder.glob(f".part-{place.partition:05d}*.tmp"):
            left.unlink(missing_ok=True)
        return True

    def _flush(self, end: int) -> None:
        place = self.place
        batch: LogBatch | None = None
        try:
            batch = self._log.read(place.topic, place.partition, self.position, self._limit)
            following = batch.following
            if following <= self.position:
                return
            normal = self._normal(batch.events, batch.offsets) if batch.events.num_rows else self._nothing()
            self._set_aside(batch.rejected)
            write_part(place.folder, self.position, normal, following - self.position, place.partition)
        except (Unavailable, OSError, MemoryError):
            raise
        except UnreadableEvents as error:
            self._reject(None, str(error), error.until or self.position + 1)
        except Exception as error:  # whatever is wrong with the events, others must pass
            if self._limit > 1:
                self._limit = max(1, min(self._limit, end - self.position) // 2)
                return
            self._reject(batch, f"{type(error).__name__}: {error}", self.position + 1)
        else:
            self._count(normal, batch.rejected)
            self.position = following
            self._limit = min(self._limit * 2, PART_ROWS)
            self._n_parts += 1
            if self._n_parts % COMPACT_FILES == 0:
                compact(place.folder, PART_ROWS, COMPACT_FILES // 2, place.partition)
            before_s = (self._clock.now_us() - KEEP_REPLACED_US) / SECOND_US
            drop_replaced(place.folder, before_s, place.partition)

    def _normal(self, events: pa.Table, offsets: NDArray[np.int64]) -> pa.Table:
        """The declared columns in their types; raises where an event does not fit."""
        keys = [key for key in self._project.entity_keys() if key in events.column_names]
        schema = normal_schema(self._project, self.place.source, keys)
        missing = [name for name in schema.names if name not in events.column_names]
        if missing:
            raise ValueError(f"column(s) {', '.join(missing)} are missing")
        normal = events.select(schema.names).cast(schema)
        source = self._project.sources[self.place.source]
        for name in (source.event_time, source.event_id):
            if name is not None and normal.column(name).null_count:
                raise ValueError(f"{name} is missing")
        nulls = [normal.column(key).is_null().to_numpy() for key in keys]
        every = self.place.source in (self._project.request, self._project.label.source)
        lacking = (np.any if every else np.all)(nulls, axis=0) if nulls else np.ones(1, dtype=bool)
        if lacking.any():
            raise ValueError(f"{' or '.join(keys or self._project.entity_keys())} is missing")
        return self._placed(normal, offsets)

    def _placed(self, normal: pa.Table, offsets: NDArray[np.int64]) -> pa.Table:
        """With the columns that say where in the log an event is, and the hash of its id."""
        partition = pa.array(np.full(len(offsets), self.place.partition, dtype=np.int32))
        normal = normal.append_column(OFFSET_COLUMN, pa.array(offsets, pa.int64()))
        normal = normal.append_column(PARTITION_COLUMN, partition)
        event_id = self._project.sources[self.place.source].event_id
        if event_id is None:
            return normal
        hashes = hashed_ids(text_array(normal.column(event_id))).view(np.int64)
        return normal.append_column(ID_HASH_COLUMN, pa.array(hashes))

    def _nothing(self) -> pa.Table:
        schema = normal_schema(self._project, self.place.source, ())
        return self._placed(schema.empty_table(), np.zeros(0, dtype=np.int64))

    def _count(self, events: pa.Table, rejected: Sequence[RejectedEvent]) -> None:
        for one in rejected:
            self.n_rejected[one.reason.partition(":")[0]] += 1
        if rejected:
            self._tell("events_rejected", source=self.place.source, partition=self.place.partition,
                       first=rejected[0].offset, n=len(rejected), reason=rejected[0].reason)  # fmt: skip
        times_us = events.column(self._event_time).cast(pa.int64()).to_numpy()
        if not len(times_us):
            return
        newest = np.maximum.accumulate(np.concatenate([[self._watermark_us], times_us]))
        self._watermark_us = int(newest[-1])
        if self._lateness_us is not None:
            n_late = int((times_us < newest[:-1] - self._lateness_us).sum())
            if n_late:
                self.n_late += n_late
                self._tell("late_events", source=self.place.source, n=n_late, total=self.n_late)

    def _set_aside(self, rejected: Sequence[RejectedEvent]) -> None:
        """Before the part: where it ends between, the same messages come again and go to the same place."""
        if not rejected:
            return
        if self._dead_letter is not None:
            self._dead_letter(self.place.topic, self.place.partition, rejected)
        self._write_rejected(
            pa.table(
                {
                    PARTITION_COLUMN: pa.array([self.place.partition] * len(rejected), pa.int32()),
                    OFFSET_COLUMN: pa.array([one.offset for one in rejected], pa.int64()),
                    "body": pa.array([one.body for one in rejected], pa.binary()),
                    "reason": pa.array([one.reason for one in rejected], pa.string()),
                }
            ),
            rejected[0].offset,
        )

    def _reject(self, batch: LogBatch | None, reason: str, until: int) -> None:
        """Set the one event aside; an empty part says that these offsets were taken."""
        place = self.place
        self._tell("events_rejected", source=place.source, partition=place.partition, first=self.position,
                   until=until, reason=reason)  # fmt: skip
        self.n_rejected[reason.partition(":")[0]] += 1
        if batch is not None:
            until = max(until, batch.following)
            self._set_aside(batch.rejected)
        if batch is not None and batch.events.num_rows:
            n = batch.events.num_rows
            self._write_rejected(
                batch.events.append_column("reason", pa.array([reason] * n, pa.string())), int(batch.offsets[0])
            )
        write_part(place.folder, self.position, self._nothing(), until - self.position, place.partition)
        self.position = until

    def _write_rejected(self, table: pa.Table, first: int) -> None:
        write_parquet(self.place.rejected / f"worker-{self.place.partition:05d}-{first:020d}.parquet", table)
