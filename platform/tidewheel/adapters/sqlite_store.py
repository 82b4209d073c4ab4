"""The online store in one SQLite file: many readers and one writer, in any number of processes.

Items and progress of a write are one transaction. WAL keeps readers going while the worker writes; a power cut may
take the last transactions whole, never a part, and the worker then takes the same events again.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tidewheel.errors import Unavailable
from tidewheel.features.declaration import StateView
from tidewheel.features.ports import Progress, StateRows, Wanted

BUSY_TIMEOUT_S = 10.0
FEW_LOOKUPS, MAX_KEYS = 9, 512

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS states (number INTEGER PRIMARY KEY, state_id TEXT NOT NULL UNIQUE, "
    "project TEXT NOT NULL, feast_view TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS progress (state INTEGER NOT NULL, partition INTEGER NOT NULL, "
    "position INTEGER NOT NULL, watermark_us INTEGER NOT NULL, end INTEGER NOT NULL, "
    "caught_up_at_us INTEGER NOT NULL, heartbeat_us INTEGER NOT NULL, UNIQUE (state, partition))",
    "CREATE TABLE IF NOT EXISTS items (state INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, "
    "position INTEGER NOT NULL, UNIQUE (state, key))",
)
_READ = "SELECT value FROM items WHERE state = ? AND key = ?"
_READ_MANY = "SELECT key, value FROM items WHERE state = ? AND key IN"
_WRITE = (
    "INSERT INTO items VALUES (?, ?, ?, ?) ON CONFLICT (state, key) DO UPDATE SET value = excluded.value, "
    "position = excluded.position WHERE excluded.position > items.position"
)
_STATE = (
    "INSERT INTO states (state_id, project, feast_view) VALUES (?, ?, ?) "
    "ON CONFLICT (state_id) DO UPDATE SET project = excluded.project RETURNING number"
)
_PROGRESS = (
    "INSERT INTO progress VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (state, partition) DO UPDATE SET "
    "position = excluded.position, watermark_us = excluded.watermark_us, end = excluded.end, "
    "caught_up_at_us = excluded.caught_up_at_us, heartbeat_us = excluded.heartbeat_us "
    "WHERE excluded.position >= progress.position"
)


class SqliteOnlineStore:
    """Safe to share between threads: each has a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection()

    def read(self, wanted: Wanted) -> list[list[bytes | None]]:
        with self._translated():
            connection = self._connection()
            return [self._read(connection, state, keys) for state, keys in wanted]

    def _read(self, connection: sqlite3.Connection, state: StateView, keys: Sequence[bytes]) -> list[bytes | None]:
        """By one statement per MAX_KEYS keys: every statement lets other threads take the interpreter."""
        number = self._number(connection, state.state_id)
        if len(keys) <= FEW_LOOKUPS:
            rows = [connection.execute(_READ, (number, key)).fetchone() for key in keys]
            return [row[0] if row is not None else None for row in rows]
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), MAX_KEYS):
            some: list[bytes | None] = list(keys[start : start + MAX_KEYS])
            # A power of two, filled up with null, which equals no key: few statements, so that all stay prepared.
            some += [None] * ((1 << (len(some) - 1).bit_length()) - len(some))
            marks = ", ".join("?" * len(some))
            found.update(connection.execute(f"{_READ_MANY} ({marks})", (number, *some)))
        return [found.get(key) for key in keys]

    def write(self, state: StateView, partition: int, rows: StateRows, progress: Progress) -> None:
        with self._translated():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                (number,) = connection.execute(_STATE, (state.state_id, state.project, state.feast_view)).fetchone()
                items = zip(rows.keys, rows.blobs, rows.positions.tolist(), strict=True)
                connection.executemany(_WRITE, ((number, *item) for item in items))
                facts = (
                    number, partition, progress.position, progress.watermark_us, progress.end,
                    progress.caught_up_at_us, progress.heartbeat_us,
                )  # fmt: skip
                connection.execute(_PROGRESS, facts)
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise

    def progress(self, states: Sequence[StateView]) -> dict[str, dict[int, Progress]]:
        with self._translated():
            marks = ", ".join("?" for _ in states)
            rows = self._connection().execute(
                "SELECT state_id, partition, position, watermark_us, end, caught_up_at_us, heartbeat_us "
                f"FROM states JOIN progress ON state = number WHERE state_id IN ({marks})",
                [state.state_id for state in states],
            )
            told: dict[str, dict[int, Progress]] = {}
            for state_id, partition, *facts in rows:
                told.setdefault(state_id, {})[partition] = Progress(*facts)
            return told

    def keep_only(self, project: str, states: Sequence[StateView]) -> list[str]:
        kept = {state.state_id for state in states}
        with self._translated():
            connection = self._connection()
            rows = connection.execute(
                "SELECT number, state_id, feast_view FROM states WHERE project = ?", (project,)
            ).fetchall()
            gone = [(number, state_id, name) for number, state_id, name in rows if state_id not in kept]
            for number, state_id, _ in gone:
                connection.execute("BEGIN IMMEDIATE")
                for table, column in (("items", "state"), ("progress", "state"), ("states", "number")):
                    connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))
                connection.execute("COMMIT")
                self._numbers.pop(state_id, None)
            return sorted(name for _, _, name in gone)

    def close(self) -> None:
        with self._lock:
            for connection in self._all:
                connection.close()
            self._all.clear()
        self._local = threading.local()

    def _number(self, connection: sqlite3.Connection, state_id: str) -> int:
        number = self._numbers.get(state_id)
        if number is not None:
            return number
        row = connection.execute("SELECT number FROM states WHERE state_id = ?", (state_id,)).fetchone()
        if row is None:
            return -1  # not made yet: no item can match
        self._numbers[state_id] = int(row[0])
        return int(row[0])

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            with self._translated():
                connection = sqlite3.connect(
                    self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
                )
                connection.execute("PRAGMA busy_timeout = 10000")
                _enter_wal_mode(connection)
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute("PRAGMA cache_size = -65536")
                connection.execute("PRAGMA mmap_size = 1073741824")
                for statement in _SCHEMA:
                    connection.execute(statement)
            self._local.connection = connection
            with self._lock:
                self._all.append(connection)
        return connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise Unavailable(f"{self._path}: the online store does not answer ({error})") from error
        except sqlite3.Error as error:
            raise Unavailable(
                f"{self._path}: the online store is damaged ({error}); run 'tidewheel down', remove the file, and "
                "'tidewheel up' fills it again from the event log"
            ) from error


def _enter_wal_mode(connection: sqlite3.Connection) -> None:
    """Switch once per file. SQLite does not wait for the lock here whatever the busy time-out, so we do."""
    deadline_s = time.monotonic() + BUSY_TIMEOUT_S
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:  # another process opens the new file at this moment
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.02)
