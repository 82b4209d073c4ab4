"""The event log in a list of tables: the twin that unit tests use."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa


class MemoryEventLog:
    """Topics of tables."""

    def __init__(self) -> None:
        self.topics: dict[str, list[pa.Table]] = {}

    def append(self, topic: str, events: pa.Table) -> tuple[int, int]:
        first = self.end(topic)
        if events.num_rows:
            self.topics.setdefault(topic, []).append(events)
        return first, first + events.num_rows

    def read(
        self, topic: str, offset: int, max_rows: int, columns: Sequence[str] | None = None
    ) -> tuple[int, pa.Table]:
        if offset >= self.end(topic):
            return offset, pa.table({})
        table = pa.concat_tables(self.topics[topic], promote_options="default").slice(offset, max_rows)
        return offset, table if columns is None else table.select([c for c in columns if c in table.column_names])

    def end(self, topic: str) -> int:
        return sum(table.num_rows for table in self.topics.get(topic, []))
