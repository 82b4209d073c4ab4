"""Reads a time window out of a folder of Parquet files, touching only the files and row groups that can hold it.

A small index beside the reports remembers each file's time range, so that a run opens the footers of new files only.
`pyarrow.dataset` would do this too, but importing it imports pandas, which costs a second.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tidewheel.errors import InputError, Unavailable

_ANY_TIME = (-(2**62), 2**62)


class ParquetFolder:
    """Files ``*.parquet`` of one folder with a time column (int64 microseconds or a timestamp)."""

    def __init__(self, folder: Path, time_column: str, index_file: Path | None = None) -> None:
        self.folder, self._time_column, self._index_file = folder, time_column, index_file
        self._ranges = self._read_index()

    @property
    def first_us(self) -> int | None:
        """The oldest event time, None where the folder is empty."""
        return min((low for low, high in self._ranges.values() if low <= high), default=None)

    @property
    def last_us(self) -> int | None:
        return max((high for low, high in self._ranges.values() if low <= high), default=None)

    def tables(self, columns: Sequence[str] | None, start_us: int, end_us: int) -> Iterator[pa.Table]:
        """Rows with start < time <= end, file by file, in the order of file names; an absent column is null."""
        for name in sorted(self._ranges):
            low, high = self._ranges[name]
            if high <= start_us or low > end_us:
                continue
            try:
                yield from self._read(self.folder / name, columns, start_us, end_us)
            except FileNotFoundError as error:  # compacted away since it was listed
                raise Unavailable(f"{self.folder / name}: was replaced while it was read; run it again") from error
            except pa.ArrowInvalid as error:
                raise InputError(f"{self.folder / name}: cannot be read ({str(error).splitlines()[0]})") from error

    def every_column(self, start_us: int, end_us: int) -> Iterator[pa.Table]:
        """As ``tables``, with all columns that a file has."""
        yield from self.tables(None, start_us, end_us)

    def times_of(self, table: pa.Table) -> NDArray[np.int64]:
        """The time column as int64 microseconds."""
        times: NDArray[np.int64] = table.column(self._time_column).cast(pa.int64()).to_numpy()
        return times

    def _read(self, path: Path, columns: Sequence[str] | None, start_us: int, end_us: int) -> Iterator[pa.Table]:
        with pq.ParquetFile(path) as file:
            there = set(file.schema_arrow.names)
            if columns is None:
                columns = file.schema_arrow.names
            wanted = list(dict.fromkeys([self._time_column, *(name for name in columns if name in there)]))
            for group in range(file.num_row_groups):
                low, high = _group_range(file, group, self._time_column)
                if high <= start_us or low > end_us:
                    continue
                table = file.read_row_group(group, columns=wanted)
                times = self.times_of(table)
                inside = (times > start_us) & (times <= end_us)
                if not inside.all():
                    table = table.filter(pa.array(inside))
                for name in columns:
                    if name not in there:
                        table = table.append_column(name, pa.nulls(table.num_rows))
                if table.num_rows:
                    yield table

    def _read_index(self) -> dict[str, tuple[int, int]]:
        names = self._names()
        known: dict[str, Any] = {}
        if self._index_file is not None:
            try:
                known = json.loads(self._index_file.read_bytes())
            except (OSError, ValueError):  # lost or damaged: made again
                known = {}
        ranges: dict[str, tuple[int, int]] = {}
        for name in names:
            if name in known:
                ranges[name] = (int(known[name][0]), int(known[name][1]))
                continue
            try:
                with pq.ParquetFile(self.folder / name) as file:
                    groups = [
                        _group_range(file, group, self._time_column)
                        for group in range(file.num_row_groups)
                        if file.metadata.row_group(group).num_rows
                    ]
            except FileNotFoundError:
                continue
            except pa.ArrowInvalid as error:
                raise InputError(
                    f"{self.folder / name}: cannot be read ({str(error).splitlines()[0]}); move it away"
                ) from error
            # No rows: an empty range that no window meets.
            ranges[name] = (min(low for low, _ in groups), max(high for _, high in groups)) if groups else (0, -1)
        if self._index_file is not None and ranges.keys() != known.keys():
            _write(self._index_file, json.dumps(ranges).encode())
        return ranges

    def _names(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        return [e.name for e in os.scandir(self.folder) if e.name.endswith(".parquet") and not e.name.startswith(".")]


def _group_range(file: pq.ParquetFile, group: int, column: str) -> tuple[int, int]:
    """Least and largest time by the footer's statistics; any time where there are none."""
    index = file.schema_arrow.get_field_index(column)
    if index < 0:
        raise InputError(f"column {column!r} is missing (got {', '.join(file.schema_arrow.names)})")
    meta = file.metadata.row_group(group)
    for position in range(meta.num_columns):
        chunk = meta.column(position)
        if chunk.path_in_schema == column:
            stats = chunk.statistics
            if stats is None or not stats.has_min_max:
                return _ANY_TIME
            return _micros(stats.min), _micros(stats.max)
    return _ANY_TIME


def _micros(value: Any) -> int:
    if isinstance(value, datetime):
        from tidewheel.clock import parse_utc

        return parse_utc(value.isoformat())
    return int(value)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
