"""Databases of a PostgreSQL server, each with a user of its name."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from tidewheel.errors import InputError, Unavailable

TIMEOUT_S = 5
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


def make_database(server: str, superuser_password: str, name: str, password: str) -> None:
    """A database and a user ``name`` that owns it; where they are there, the password is set again.

    ``server`` is ``postgresql://SUPERUSER@HOST:PORT``. Raises Unavailable where it does not answer.
    """
    import psycopg
    from psycopg import sql

    if not _NAME.fullmatch(name):
        raise InputError(f"database name {name!r}: lower case letters, digits and _")
    try:
        with _connect(server, superuser_password, "postgres") as connection:
            role = sql.Identifier(name)
            there = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone()
            verb = sql.SQL("ALTER" if there else "CREATE")
            connection.execute(sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, role, sql.Literal(password)))
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
                # A server that was set up without a locale would give a database that knows no encoding.
                utf8 = sql.SQL("CREATE DATABASE {} OWNER {} ENCODING 'UTF8' TEMPLATE template0")
                connection.execute(utf8.format(role, role))
    except psycopg.OperationalError as error:
        raise Unavailable(f"PostgreSQL: {str(error).splitlines()[0]}") from error


def answers(server: str, name: str, password: str) -> bool:
    """Whether the database lets its user in."""
    import psycopg

    host = urlsplit(server)
    try:
        with _connect(f"postgresql://{name}@{host.hostname}:{host.port or 5432}", password, name):
            return True
    except psycopg.OperationalError:
        return False


def _connect(server: str, password: str, database: str) -> Any:
    import psycopg

    at = urlsplit(server)
    return psycopg.connect(
        host=at.hostname, port=at.port or 5432, user=at.username, password=password, dbname=database,
        connect_timeout=TIMEOUT_S, autocommit=True,
    )  # fmt: skip
