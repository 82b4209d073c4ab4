"""The online store in one SQLite file: many readers and one writer, in any number of processes.

Items and progress of a write are one transaction. WAL keeps readers going while the worker writes; a power cut may
take the last transactions whole, never a part, and the worker then takes the same events again.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tidewheel.errors import Unavailable
from tidewheel.features.ports import Progress

BUSY_TIMEOUT_S = 10.0
FEW_LOOKUPS, MAX_KEYS = 9, 512

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS states (number INTEGER PRIMARY KEY, state_id TEXT NOT NULL UNIQUE, "
    "position INTEGER NOT NULL, watermark_us INTEGER NOT NULL, end INTEGER NOT NULL, "
    "caught_up_at_us INTEGER NOT NULL, heartbeat_us INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS items (state INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, "
    "UNIQUE (state, key))",
)
_READ = "SELECT value FROM items WHERE state = ? AND key = ?"
_READ_MANY = "SELECT key, value FROM items WHERE state = ? AND key IN"
_WRITE = "INSERT INTO items VALUES (?, ?, ?) ON CONFLICT (state, key) DO UPDATE SET value = excluded.value"
_PROGRESS = (
    "INSERT INTO states (state_id, position, watermark_us, end, caught_up_at_us, heartbeat_us) "
    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (state_id) DO UPDATE SET position = excluded.position, "
    "watermark_us = excluded.watermark_us, end = excluded.end, caught_up_at_us = excluded.caught_up_at_us, "
    "heartbeat_us = excluded.heartbeat_us RETURNING number"
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

    def read(self, lookups: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        with self._translated():
            connection = self._connection()
            if len(lookups) > FEW_LOOKUPS:
                return self._read_many(connection, lookups)
            values: list[bytes | None] = []
            for state_id, key in lookups:
                row = connection.execute(_READ, (self._number(connection, state_id), key)).fetchone()
                values.append(row[0] if row is not None else None)
            return values

    def _read_many(self, connection: sqlite3.Connection, lookups: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        """By one statement per state and MAX_KEYS keys: every statement lets other threads take the interpreter."""
        keys: dict[str, list[bytes]] = {}
        for state_id, key in lookups:
            keys.setdefault(state_id, []).append(key)
        found: dict[str, dict[bytes, bytes]] = {}
        for state_id, wanted in keys.items():
            number, mine = self._number(connection, state_id), found.setdefault(state_id, {})
            for start in range(0, len(wanted), MAX_KEYS):
                some = wanted[start : start + MAX_KEYS]
                # A power of two, filled up with null, which equals no key: few statements, so that all stay prepared.
                some += [None] * ((1 << (len(some) - 1).bit_length()) - len(some))  # type: ignore[list-item]
                marks = ", ".join("?" * len(some))
                mine.update(connection.execute(f"{_READ_MANY} ({marks})", (number, *some)))
        return [found[state_id].get(key) for state_id, key in lookups]

    def write(self, state_id: str, items: Mapping[bytes, bytes], progress: Progress) -> None:
        with self._translated():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                facts = (
                    state_id, progress.position, progress.watermark_us, progress.end,
                    progress.caught_up_at_us, progress.heartbeat_us,
                )  # fmt: skip
                (number,) = connection.execute(_PROGRESS, facts).fetchone()
                if items:
                    connection.executemany(_WRITE, ((number, key, value) for key, value in items.items()))
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise

    def progress(self, state_ids: Sequence[str]) -> dict[str, Progress]:
        with self._translated():
            marks = ", ".join("?" for _ in state_ids)
            rows = self._connection().execute(
                "SELECT state_id, position, watermark_us, end, caught_up_at_us, heartbeat_us FROM states "
                f"WHERE state_id IN ({marks})",
                list(state_ids),
            )
            return {state_id: Progress(*facts) for state_id, *facts in rows}

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
