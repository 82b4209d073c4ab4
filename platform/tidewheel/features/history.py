"""The log where it no longer reaches back: offsets that retention removed are read from the lake, which kept them.

For topics that the lake is written from; one that is keyed anew has offsets of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tidewheel.features.events import OFFSET_COLUMN
from tidewheel.features.lake import Part, live_parts, read_parquet
from tidewheel.features.ports import EventLog, LogBatch, UnreadableEvents


class HistoryLog:
    """An event log with the lake behind it. ``folders``: topic to where its events are in the lake; asked at each
    read, since projects change."""

    def __init__(self, log: EventLog, folders: Callable[[], Mapping[str, Path]]) -> None:
        self._log, self._folders = log, folders
        self._gone: dict[tuple[str, int], int] = {}  # below this offset the log is not asked again
        self._held: tuple[Path, pa.Table] | None = None  # a part has the rows of several reads

    def append(self, topic: str, events: pa.Table) -> None:
        self._log.append(topic, events)

    def partitions(self, topic: str) -> int:
        return self._log.partitions(topic)

    def begin(self, topic: str, partition: int) -> int:
        """The oldest offset of log and lake."""
        folder = self._folders().get(topic)
        first = [part.first for part in live_parts(folder)[0] if part.partition == partition] if folder else []
        return min([self._log.begin(topic, partition), *first[:1]])

    def end(self, topic: str, partition: int) -> int:
        return self._log.end(topic, partition)

    def read(
        self, topic: str, partition: int, offset: int, max_rows: int, columns: Sequence[str] | None = None
    ) -> LogBatch:
        """Raises UnreadableEvents where neither has them."""
        if offset >= self._gone.get((topic, partition), 0):
            try:
                return self._log.read(topic, partition, offset, max_rows, columns)
            except UnreadableEvents as error:
                found = self._from_lake(topic, partition, offset, max_rows, columns)
                if found is None:
                    raise
                if error.until is not None and error.first <= offset:
                    self._gone[topic, partition] = error.until
                return found
        found = self._from_lake(topic, partition, offset, max_rows, columns)
        return self._log.read(topic, partition, offset, max_rows, columns) if found is None else found

    def _from_lake(
        self, topic: str, partition: int, offset: int, max_rows: int, columns: Sequence[str] | None
    ) -> LogBatch | None:
        """Events of one part; None where no part holds the offset."""
        folder = self._folders().get(topic)
        live = live_parts(folder)[0] if folder is not None else []
        holding = [one for one in live if one.partition == partition and one.first <= offset < one.following]
        if not holding:
            return None
        table = self._table(holding[0])
        offsets = table.column(OFFSET_COLUMN).to_numpy()
        start = int(np.searchsorted(offsets, offset))
        stop = min(start + max_rows, len(offsets))
        following = int(offsets[stop]) if stop < len(offsets) else holding[0].following
        events = table.slice(start, stop - start)
        if columns is not None:
            events = events.select([name for name in columns if name in events.column_names])
        return LogBatch(offsets[start:stop], following, events)

    def _table(self, part: Part) -> pa.Table:
        if self._held is None or self._held[0] != part.path:
            self._held = (part.path, read_parquet(part.path))
        return self._held[1]
