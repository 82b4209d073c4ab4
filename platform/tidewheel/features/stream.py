"""From the event log to online state: each event taken exactly once, whatever is killed and when.

A state says up to which position it includes its partition of the log. So whoever starts again goes on where the last
whole write ended, and two at once do no harm. A batch that cannot be used is halved until the single event at fault is
found; that event is skipped and never stops the rest: what takes events to the lake sets it aside there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tidewheel.clock import SECOND_US, Clock
from tidewheel.errors import Unavailable
from tidewheel.features.batches import keyed_events, state_columns
from tidewheel.features.declaration import BatchView, StateView, WindowedView
from tidewheel.features.kernel import TIME, merged_states
from tidewheel.features.merge import published_values
from tidewheel.features.ports import EventLog, LogBatch, OnlineStore, Progress, StateRows, UnreadableEvents

HEARTBEAT_US = SECOND_US // 2
BATCH_ROWS = 65_536

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
        topic: str | None = None,
        told: Progress | None = None,
    ) -> None:
        """``topic``: where not the source's own. ``told``: the progress, where the caller has asked already."""
        self.view, self.state, self.partition = view, view.state, partition
        self._log, self._store, self._clock, self._tell = log, store, clock, tell
        self._columns = state_columns(view.state)
        self._limit = BATCH_ROWS
        self.topic = topic or view.state.topic
        told = told or store.progress([view.state]).get(view.state.state_id, {}).get(partition)
        self.progress = told or Progress(0, 0, 0, 0, 0)

    def step(self) -> int:
        """Take one micro-batch; how many offsets it had. Raises Unavailable where the store does not answer."""
        end = self._end()
        position = self.progress.position
        if position >= end:
            return 0
        try:
            batch = self._log.read(self.topic, self.partition, position, self._limit, self._columns)
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
        return self._log.end(self.topic, self.partition)

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
        self._tell("events_skipped", topic=self.topic, state=self.state.state_id, partition=self.partition,
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
