"""A real PostgreSQL on loopback for tests, with a password; it refuses to run as root, so root starts it as another."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from servers.mlflow import free_port
from waiting import until

PASSWORD = "not-told-anyone"


@contextmanager
def postgres_server(database: str) -> Iterator[str]:
    """Yields a URL without the password, which is PASSWORD; the server and its files are gone afterwards."""
    initdb, postgres = _program("initdb"), _program("postgres")
    if initdb is None or postgres is None:
        pytest.skip("PostgreSQL is not installed; install it by 'make test-servers'")
    user = "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="tidewheel-postgres-"))
    secret = folder / "password"
    secret.write_text(PASSWORD)
    if user is not None:
        entry = pwd.getpwnam(user)
        for path in (folder, secret):
            os.chown(path, entry.pw_uid, entry.pw_gid)
    port, data = free_port(), folder / "data"
    made = [
        initdb,
        "-D",
        str(data),
        "-U",
        "svc",
        "--auth",
        "scram-sha-256",
        "--pwfile",
        str(secret),
        "-E",
        "UTF8",
        "-N",
    ]
    try:
        subprocess.run(made, check=True, capture_output=True, user=user, cwd=folder, env={"PATH": os.environ["PATH"]})
        started = [postgres, "-D", str(data), "-p", str(port), "-c", "listen_addresses=127.0.0.1",
                   "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]  # fmt: skip
        log = folder / "postgres.log"
        with log.open("wb") as file:
            server = subprocess.Popen(started, stdout=file, stderr=file, user=user, cwd=folder, start_new_session=True)
        try:
            until(lambda: _made(server, port, database, log), limit_s=30)
            yield f"postgresql://svc@127.0.0.1:{port}/{database}"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(timeout=20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _made(server: subprocess.Popen[bytes], port: int, database: str, log: Path) -> bool:
    import psycopg

    assert server.poll() is None, log.read_text()[-2000:]
    try:
        with psycopg.connect(
            host="127.0.0.1", port=port, user="svc", password=PASSWORD, dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(f"CREATE DATABASE {database}")
            return True
    except psycopg.OperationalError:
        return False


def _program(name: str) -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)
