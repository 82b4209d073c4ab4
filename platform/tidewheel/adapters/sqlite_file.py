"""A SQLite file that several processes share: opened in WAL mode, set aside where it is damaged."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from tidewheel.errors import Unavailable

BUSY_TIMEOUT_S = 10.0


class DamagedStore(Unavailable):
    """The file is no database, or not a whole one. What it held can be had again from the event log: whoever writes
    it sets it aside and starts anew, whoever reads it finds the new one."""

    def __init__(self, path: Path, error: Exception) -> None:
        super().__init__(
            f"{path}: the online store is damaged ({error}); the stream worker sets it aside and fills a new one from "
            "the event log; 'tidewheel up' starts it"
        )
        self.path = path


def set_aside(path: Path) -> Path:
    """Put a new, empty place behind the name of a damaged file, for the one process that writes it; where the damaged
    one is kept.

    The name becomes a link: SQLite removes a write-ahead log by its database's name when the last connection closes,
    and those that still have the damaged file open must not remove the new file's.
    """
    number = 1
    while (fresh := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
        number += 1
    away = path.resolve()
    if not path.is_symlink():
        away = path.with_name(f"{path.name}.damaged-{number}")
        away.hardlink_to(path)
    link = path.with_name(f".{path.name}.tmp")
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.replace(path)
    fresh.touch()
    return away


def opened(path: Path, schema: Sequence[str]) -> sqlite3.Connection:
    """A connection whose tables are there. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA busy_timeout = 10000")
        _enter_wal_mode(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute("PRAGMA mmap_size = 1073741824")
        for statement in schema:
            connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


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
