"""The online store in one SQLite file, in the layout that stock Feast clients read: many readers and one writer, in
any number of processes.

A write is one transaction. WAL keeps readers going while the worker writes; a power cut may take the last
transactions whole, never a part, and the worker then takes the same events again.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, repeat
from pathlib import Path

from tidewheel.adapters.sqlite_file import DamagedStore, opened
from tidewheel.clock import SECOND_US
from tidewheel.errors import Unavailable
from tidewheel.features.declaration import StateView
from tidewheel.features.feast_layout import (
    STATE,
    decode_bytes,
    encode_bytes,
    encode_numbers,
    encode_positions,
    feast_project,
)
from tidewheel.features.ports import LostWrites, Progress, StateRows, Wanted

FEW_LOOKUPS, MAX_KEYS = 9, 512
LOOK_EVERY_S = 1.0  # whether the file is still the one that was opened

# Ours, beside Feast's tables; an entity's position is in the column vector_value, which Feast leaves empty.
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS tidewheel_progress (state_id TEXT NOT NULL, partition INTEGER NOT NULL, "
    "project TEXT NOT NULL, feast_view TEXT NOT NULL, position INTEGER NOT NULL, watermark_us INTEGER NOT NULL, "
    "end INTEGER NOT NULL, caught_up_at_us INTEGER NOT NULL, heartbeat_us INTEGER NOT NULL, "
    "PRIMARY KEY (state_id, partition))",
)
# As feast 0.67 makes it, but for an index on what the primary key begins with.
_TABLE = (
    "CREATE TABLE IF NOT EXISTS {table} (entity_key BLOB, feature_name TEXT, value BLOB, value_text TEXT, "
    "vector_value BLOB, event_ts timestamp, created_ts timestamp, PRIMARY KEY(entity_key, feature_name))"
)
_READ = "SELECT value FROM {table} WHERE entity_key = ? AND feature_name = 'state'"
_READ_MANY = "SELECT entity_key, value FROM {table} WHERE feature_name = 'state' AND entity_key IN"
_WRITE = (
    "INSERT INTO {table} (entity_key, feature_name, value, vector_value, event_ts) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (entity_key, feature_name) DO UPDATE SET value = excluded.value, "
    "vector_value = excluded.vector_value, event_ts = excluded.event_ts "
    "WHERE vector_value IS NULL OR excluded.vector_value > vector_value"
)
_PROGRESS = (
    "INSERT INTO tidewheel_progress VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (state_id, partition) DO UPDATE SET "
    "position = excluded.position, watermark_us = excluded.watermark_us, end = excluded.end, "
    "caught_up_at_us = excluded.caught_up_at_us, heartbeat_us = excluded.heartbeat_us "
    "WHERE excluded.position >= position"
)

_POSITION = "SELECT position FROM tidewheel_progress WHERE state_id = ? AND partition = ?"


class SqliteOnlineStore:
    """Safe to share between threads: each has a connection of its own. Raises DamagedStore where the file is no
    database, or not a whole one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._reads: dict[str, tuple[str, str]] = {}  # statements for one and for many, by state
        self._made: set[tuple[int, str]] = set()  # (file, state) whose table is there
        self._told: dict[tuple[str, int], int] = {}  # position of a state in a partition, as it was last known
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._translated():
            self._connection()

    def read(self, wanted: Wanted) -> list[list[bytes | None]]:
        with self._translated():
            connection = self._connection()
            return [self._read(connection, state, keys) for state, keys in wanted]

    def _read(self, connection: sqlite3.Connection, state: StateView, keys: Sequence[bytes]) -> list[bytes | None]:
        """By one statement per MAX_KEYS keys: every statement lets other threads take the interpreter."""
        one, many = self._reads.get(state.state_id) or self._prepare(state)
        found: dict[bytes, bytes] = {}
        try:
            if len(keys) <= FEW_LOOKUPS:
                rows = [connection.execute(one, (key,)).fetchone() for key in keys]
                return [decode_bytes(row[0]) if row is not None else None for row in rows]
            for start in range(0, len(keys), MAX_KEYS):
                some: list[bytes | None] = list(keys[start : start + MAX_KEYS])
                # A power of two, filled up with null, which equals no key: few statements, so that all stay prepared.
                some += [None] * ((1 << (len(some) - 1).bit_length()) - len(some))
                found.update(connection.execute(f"{many} ({', '.join('?' * len(some))})", some))
        except sqlite3.OperationalError as error:
            if not str(error).startswith("no such table"):  # not made yet, or removed
                raise
        return [decode_bytes(found.get(key)) for key in keys]

    def _prepare(self, state: StateView) -> tuple[str, str]:
        table = _table(state.project, state.feast_view)
        return self._reads.setdefault(state.state_id, (_READ.format(table=table), _READ_MANY.format(table=table)))

    def write(self, state: StateView, partition: int, rows: StateRows, progress: Progress) -> None:
        table = _table(state.project, state.feast_view)
        facts = (
            state.state_id, partition, state.project, state.feast_view, progress.position, progress.watermark_us,
            progress.end, progress.caught_up_at_us, progress.heartbeat_us,
        )  # fmt: skip
        with self._translated():
            connection = self._connection()
            made = (self._local.inode, state.state_id)
            connection.execute("BEGIN IMMEDIATE")
            try:
                self._refuse_loss(connection, state.state_id, partition)
                if made not in self._made:
                    connection.execute(_TABLE.format(table=table))
                connection.executemany(_WRITE.format(table=table), _items(state, rows))
                connection.execute(_PROGRESS, facts)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a damaged file has ended the transaction itself
                    connection.execute("ROLLBACK")
                raise
            self._made.add(made)
            self._told[state.state_id, partition] = max(
                progress.position, self._told.get((state.state_id, partition), 0)
            )

    def _refuse_loss(self, connection: sqlite3.Connection, state_id: str, partition: int) -> None:
        least = self._told.get((state_id, partition))
        if least is None:
            return
        row = connection.execute(_POSITION, (state_id, partition)).fetchone()
        if row is None or row[0] < least:
            self._told.clear()
            raise LostWrites(f"{self._path}: the online store has lost writes; they are taken again from the event log")

    def progress(self, states: Sequence[StateView]) -> dict[str, dict[int, Progress]]:
        with self._translated():
            marks = ", ".join("?" for _ in states)
            rows = self._connection().execute(
                "SELECT state_id, partition, position, watermark_us, end, caught_up_at_us, heartbeat_us "
                f"FROM tidewheel_progress WHERE state_id IN ({marks})",
                [state.state_id for state in states],
            )
            told: dict[str, dict[int, Progress]] = {}
            for state_id, partition, *facts in rows:
                told.setdefault(state_id, {})[partition] = Progress(*facts)
                self._told[state_id, partition] = facts[0]
            return told

    def keep_only(self, project: str, states: Sequence[StateView]) -> list[str]:
        kept = {state.state_id for state in states}
        with self._translated():
            connection = self._connection()
            rows = connection.execute(
                "SELECT DISTINCT state_id, feast_view FROM tidewheel_progress WHERE project = ?", (project,)
            ).fetchall()
            gone = {state_id: feast_view for state_id, feast_view in rows if state_id not in kept}
            for state_id, feast_view in gone.items():
                self._made.discard((self._local.inode, state_id))
                self._told = {at: position for at, position in self._told.items() if at[0] != state_id}
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(f"DROP TABLE IF EXISTS {_table(project, feast_view)}")
                connection.execute("DELETE FROM tidewheel_progress WHERE state_id = ?", (state_id,))
                connection.execute("COMMIT")
            return sorted(gone.values())

    def close(self) -> None:
        with self._lock:
            for connection in self._all:
                connection.close()
            self._all.clear()
        self._local = threading.local()

    def _connection(self) -> sqlite3.Connection:
        local = self._local
        connection: sqlite3.Connection | None = getattr(local, "connection", None)
        now_s = time.monotonic()
        if connection is not None:
            if now_s < local.look_at_s:
                return connection
            local.look_at_s = now_s + LOOK_EVERY_S
            if self._inode() == local.inode:
                return connection
            self._forget(connection)  # the file was set aside and is made anew
        connection = opened(self._path, _SCHEMA)
        with self._lock:
            self._all.append(connection)
        local.connection, local.inode, local.look_at_s = connection, self._inode(), now_s + LOOK_EVERY_S
        return connection

    def _inode(self) -> int:
        try:
            return self._path.stat().st_ino
        except OSError:
            return -1

    def _forget(self, connection: sqlite3.Connection) -> None:
        self._local.connection = None
        with self._lock:
            if connection in self._all:
                self._all.remove(connection)
        connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise Unavailable(f"{self._path}: the online store does not answer ({error})") from error
        except sqlite3.Error as error:
            connection = getattr(self._local, "connection", None)
            if connection is not None:
                self._forget(connection)
            raise DamagedStore(self._path, error) from error


def _table(project: str, feast_view: str) -> str:
    """Feast's name of a view's table, quoted."""
    return '"' + f"{feast_project(project)}_{feast_view}".replace('"', '""') + '"'


def _items(state: StateView, rows: StateRows) -> Iterator[tuple[bytes, str, bytes, bytes, int]]:
    """Feast's rows, an entity's together; event times in whole seconds, as Feast keeps them."""
    positions = encode_positions(rows.positions)
    times_s = (rows.times_us // SECOND_US).tolist()

    def column(feature: str, values: Iterable[bytes]) -> Iterator[tuple[bytes, str, bytes, bytes, int]]:
        return zip(rows.keys, repeat(feature), values, positions, times_s, strict=False)

    columns = [column(STATE, map(encode_bytes, rows.blobs))]
    for index, (feature, dtype) in enumerate(state.published):
        columns.append(column(feature, encode_numbers(dtype, rows.published[:, index])))
    return chain.from_iterable(zip(*columns, strict=True))
