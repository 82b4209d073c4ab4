"""The event log in lists of tables: the twin that unit tests use. Messages that are no events, and offsets that
retention removed, can be put in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tidewheel.features.ports import LogBatch, RejectedEvent, UnreadableEvents

Place = tuple[str, int]


class MemoryEventLog:
    """Topics of tables by partition; ``rejected`` offsets hold no event."""

    def __init__(self, n_partitions: int = 1) -> None:
        self.n_partitions = n_partitions
        self.held: dict[Place, list[pa.Table]] = {}
        self.rejected: dict[Place, dict[int, RejectedEvent]] = {}
        self.begins: dict[Place, int] = {}

    def append(self, topic: str, events: pa.Table, partition: int = 0) -> None:
        if events.num_rows:
            self.held.setdefault((topic, partition), []).append(events)

    def spoil(self, topic: str, partition: int, offset: int, reason: str) -> None:
        """What is at ``offset`` is no event."""
        one = RejectedEvent(offset, reason, b"rubbish")
        self.rejected.setdefault((topic, partition), {})[offset] = one

    def partitions(self, topic: str) -> int:
        return self.n_partitions

    def begin(self, topic: str, partition: int) -> int:
        return self.begins.get((topic, partition), 0)

    def end(self, topic: str, partition: int) -> int:
        return sum(table.num_rows for table in self.held.get((topic, partition), []))

    def read(
        self, topic: str, partition: int, offset: int, max_rows: int, columns: Sequence[str] | None = None
    ) -> LogBatch:
        begin = self.begin(topic, partition)
        if offset < begin:
            raise UnreadableEvents(f"{topic}: removed up to {begin}", offset, begin)
        if offset >= self.end(topic, partition):
            return LogBatch(np.zeros(0, dtype=np.int64), offset, pa.table({}))
        table = pa.concat_tables(self.held[topic, partition], promote_options="default").slice(offset, max_rows)
        offsets = np.arange(offset, offset + table.num_rows)
        bad = self.rejected.get((topic, partition), {})
        kept = ~np.isin(offsets, list(bad))
        if columns is not None:
            table = table.select([column for column in columns if column in table.column_names])
        rejected = tuple(bad[at] for at in sorted(bad) if offset <= at < offset + len(offsets))
        events = table if kept.all() else table.filter(pa.array(kept))
        return LogBatch(offsets[kept], offset + len(offsets), events, rejected)
