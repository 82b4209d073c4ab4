"""Opens the journal's database: pragmas, transactions that lock at their start, and migrations.

SQLite runs in WAL mode with a busy time-out, and a write begins with BEGIN IMMEDIATE, so a compare-and-set never reads
a value that another process is about to change. PostgreSQL locks the one row of ``chain_head`` instead.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from tidewheel.clock import Clock, SystemClock
from tidewheel.errors import Unavailable
from tidewheel.journal.schema import HEAD_REVISION

BUSY_TIMEOUT_MS = 15_000
_MIGRATION_LOCK = 0x7469_6465  # "tide": any constant that every tidewheel process shares
_DAMAGED = ("file is not a database", "disk image is malformed")  # what SQLite says of a file it cannot use


class Store:
    """A database with read and write transactions; the journal's parts build on it."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.url = url
        self.clock: Clock = clock or SystemClock()
        self._engine = _make_engine(url)
        with translated(url):
            if _revision(self._engine) != HEAD_REVISION:
                _migrate(self._engine)

    def close(self) -> None:
        """Release the connections; the object is not usable afterwards."""
        self._engine.dispose()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A consistent snapshot."""
        with translated(self.url), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that holds the write lock from its start; commits at the end, rolls back on any error."""
        with translated(self.url), self._engine.connect() as plain:
            connection = plain.execution_options(tidewheel_write=True)
            with connection.begin():
                yield connection


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Database errors as Unavailable, without credentials in the text."""
    try:
        yield
    except SQLAlchemyError as error:
        shown = sa.make_url(url).render_as_string(hide_password=True)
        cause = str(error.orig) if isinstance(error, DBAPIError) else str(error)
        damaged = any(text in cause for text in _DAMAGED)
        what_to_do = "restore it from a backup" if damaged else "check that the database answers and its disk has room"
        raise Unavailable(f"journal {shown}: {cause.splitlines()[0]}; {what_to_do}") from error


def _make_engine(url: str) -> sa.Engine:
    parsed = sa.make_url(url)
    sqlite = parsed.get_backend_name() == "sqlite"
    if sqlite and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(parsed, pool_pre_ping=not sqlite)
    if sqlite:
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves: the driver's own begins too late for a compare-and-set
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA synchronous=FULL")
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        _enter_wal_mode(connection)


def _enter_wal_mode(connection: Any) -> None:
    """Switch once per file. SQLite does not wait for the lock here whatever the busy time-out, so we do."""
    for attempt in range(100):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except Exception:  # sqlite3.OperationalError: another process switches at this moment
            if attempt == 99:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("tidewheel_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _revision(engine: sa.Engine) -> str | None:
    """The schema's revision, None in an empty database. Never imports Alembic: every command comes through here."""
    with engine.connect() as connection:
        try:
            revision: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
        except OperationalError as error:
            if "no such table" in str(error.orig):
                return None
            raise
        except DBAPIError as error:
            if "alembic_version" in str(error.orig):  # PostgreSQL: relation "alembic_version" does not exist
                return None
            raise
        return revision


def _migrate(engine: sa.Engine) -> None:
    """Bring the schema to the newest revision in one transaction; others wait and then find it done."""
    with engine.connect() as plain:
        connection = plain.execution_options(tidewheel_write=True)
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            if sa.inspect(connection).has_table("alembic_version"):
                done = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
                if done == HEAD_REVISION:
                    return
                if done is not None and done > HEAD_REVISION:
                    raise Unavailable(
                        f"journal {engine.url.render_as_string()}: its schema {done} is newer than this program's "
                        f"{HEAD_REVISION}; use the newer tidewheel"
                    )
            from alembic import command
            from alembic.config import Config

            config = Config()
            config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
