"""The event log in a list of tables: the twin that unit tests use. One partition, like the log in files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tidewheel.features.ports import LogBatch


class MemoryEventLog:
    """Topics of tables."""

    def __init__(self) -> None:
        self.topics: dict[str, list[pa.Table]] = {}

    def append(self, topic: str, events: pa.Table) -> None:
        if events.num_rows:
            self.topics.setdefault(topic, []).append(events)

    def partitions(self, topic: str) -> int:
        return 1

    def begin(self, topic: str, partition: int) -> int:
        return 0

    def end(self, topic: str, partition: int) -> int:
        return sum(table.num_rows for table in self.topics.get(topic, []))

    def read(
        self, topic: str, partition: int, offset: int, max_rows: int, columns: Sequence[str] | None = None
    ) -> LogBatch:
        if offset >= self.end(topic, partition):
            return LogBatch(np.zeros(0, dtype=np.int64), offset, pa.table({}))
        table = pa.concat_tables(self.topics[topic], promote_options="default").slice(offset, max_rows)
        offsets = np.arange(offset, offset + table.num_rows)
        if columns is not None:
            table = table.select([column for column in columns if column in table.column_names])
        return LogBatch(offsets, offset + len(offsets), table)
