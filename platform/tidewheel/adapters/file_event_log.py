"""The event log in files: one folder per topic, one Arrow IPC file per append, named by its first offset.

A file appears whole or not at all (written aside, flushed, renamed) and never changes, so readers need no lock;
appenders take one. The row count is in the file's schema, so the end of a topic is one ``stat`` away.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from tidewheel.errors import naming
from tidewheel.features.ports import LogBatch, UnreadableEvents

_ROWS = b"tidewheel.rows"
_BATCH_ROWS = 65_536


class FileEventLog:
    """Safe for many processes; one partition. An instance caches which files there are; files are never removed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, list[tuple[int, int]]] = {}  # topic -> (first offset, next offset) of its files
        self._lock = threading.Lock()

    def append(self, topic: str, events: pa.Table) -> None:
        """Durable when it returns. No rows: nothing happens."""
        folder = self._folder / topic
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / ".lock"):
            first = self._end(topic)
            if not events.num_rows:
                return
            metadata = {**(events.schema.metadata or {}), _ROWS: str(events.num_rows).encode()}
            table = events.replace_schema_metadata(metadata)
            path = self._path(topic, first)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            try:
                with naming(path), temporary.open("wb") as file:
                    with pa.ipc.new_file(file, table.schema) as writer:
                        writer.write_table(table, max_chunksize=_BATCH_ROWS)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(folder)

    def partitions(self, topic: str) -> int:
        return 1

    def begin(self, topic: str, partition: int) -> int:
        return 0

    def end(self, topic: str, partition: int) -> int:
        return self._end(topic)

    def read(
        self, topic: str, partition: int, offset: int, max_rows: int, columns: Sequence[str] | None = None
    ) -> LogBatch:
        """Up to ``max_rows`` rows from ``offset``; fewer where the next file cannot be read."""
        self._end(topic)
        pieces: list[pa.Table] = []
        wanted = max_rows
        for first, following in self._files_from(topic, offset):
            if wanted <= 0:
                break
            start = max(offset - first, 0)
            # Said in rows that exist: a slice of a table without columns believes any length.
            n = min(wanted, following - first - start)
            try:
                table = self._table(topic, first, following, columns).slice(start, n)
            except UnreadableEvents:
                if pieces:
                    break
                raise
            pieces.append(table)
            wanted -= n
        n_read = max_rows - wanted
        offsets = np.arange(offset, offset + n_read, dtype=np.int64)
        if not pieces:
            return LogBatch(offsets, offset, pa.table({}))
        events = pieces[0] if len(pieces) == 1 else pa.concat_tables(pieces, promote_options="default")
        return LogBatch(offsets, offset + n_read, events)

    def _end(self, topic: str) -> int:
        with self._lock:
            files = self._known.setdefault(topic, [])
            if not files and (self._folder / topic).is_dir():
                self._scan(topic, files)
            end = files[-1][1] if files else 0
            while (following := self._following(topic, end)) is not None:
                files.append((end, following))
                end = following
            return end

    def _scan(self, topic: str, files: list[tuple[int, int]]) -> None:
        """List the files once; the names give all row counts but the last one's."""
        names = sorted(entry.name for entry in os.scandir(self._folder / topic) if entry.name.endswith(".arrow"))
        firsts = [int(name.removesuffix(".arrow")) for name in names if name[:-6].isdigit()]
        files.extend(itertools.pairwise(firsts))

    def _following(self, topic: str, first: int) -> int | None:
        """The offset after the file that starts at ``first``; None where there is no such file."""
        path = self._path(topic, first)
        if not path.exists():
            return None
        try:
            with pa.memory_map(str(path)) as source:
                metadata = pa.ipc.open_file(source).schema.metadata or {}
            return first + int(metadata[_ROWS])
        except (pa.ArrowInvalid, KeyError, ValueError, OSError):
            # Damage on disk: nothing tells how many rows were lost, so one offset stands for all of them.
            return first + 1

    def _files_from(self, topic: str, offset: int) -> list[tuple[int, int]]:
        with self._lock:
            files = self._known.get(topic, [])
            at = bisect_right(files, (offset, 1 << 62)) - 1
            return [file for file in files[max(at, 0) :] if file[1] > offset]

    def _table(self, topic: str, first: int, following: int, columns: Sequence[str] | None) -> pa.Table:
        path = self._path(topic, first)
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
        except (pa.ArrowInvalid, OSError) as error:
            raise UnreadableEvents(
                f"{path}: cannot be read ({str(error).splitlines()[0]})", first, following
            ) from error
        if columns is not None:
            table = table.select([column for column in columns if column in table.column_names])
        return table.replace_schema_metadata(None)

    def _path(self, topic: str, first: int) -> Path:
        return self._folder / topic / f"{first:020d}.arrow"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file lets go of the lock, as does the end of the process


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
