"""``python -m tidewheel.apps.installation_check``: what `helm test` runs; one line per neighbour, with its time.

Each is used as the platform uses it: something is written and read back, not only connected to.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

from tidewheel.adapters.connections import open_event_log, open_online_store
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.mlflow_registry import MlflowRegistry
from tidewheel.adapters.object_store import open_object_store
from tidewheel.clock import SECOND_US, SystemClock
from tidewheel.errors import InputError, TidewheelError, Unavailable
from tidewheel.journal.ledger import Journal

TIMEOUT_S = 10
PROJECT = "installation-check"


def journal() -> str:
    """An entry, and the chain of all of them."""
    with Journal(LocalHome.of(Path()).journal_url) as ledger:
        made = ledger.append(PROJECT, "check", {"id": uuid.uuid4().hex}, actor="helm test")
        found = ledger.entries(PROJECT, kind="check", limit=1, newest_first=True)
        if not found or found[0].seq != made.seq:
            raise Unavailable("an entry that was made is not there")
        return f"entry {made.seq}"


def object_store() -> str:
    store = open_object_store()
    if store is None:
        raise InputError("TIDEWHEEL_OBJECT_STORE is not set")
    key, data = f"{PROJECT}/{uuid.uuid4().hex}", os.urandom(1000)
    store.put(key, data)
    same = store.get(key, 1000) == data
    store.delete(key)
    if not same:
        raise Unavailable(f"{store.name}: bytes came back otherwise than they went")
    return store.name


def online_store() -> str:
    store = open_online_store(LocalHome.of(Path()))
    try:
        store.progress([])
    finally:
        store.close()
    return os.environ.get("TIDEWHEEL_ONLINE_STORE", "a file")


def event_log() -> str:
    log = open_event_log(LocalHome.of(Path()))
    log.end("no-such-topic", 0)
    return os.environ.get("TIDEWHEEL_EVENT_LOG", "files")


def registry() -> str:
    """An answer that needs the name and the password."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return f"{len(MlflowRegistry(uri, TIMEOUT_S).all_aliases())} models"


def answers(url: str) -> Callable[[], str]:
    def ask() -> str:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as reply:
                return str(reply.status)
        except (urllib.error.URLError, OSError) as error:
            raise Unavailable(f"{url}: {error}") from error

    return ask


def main() -> int:
    parser = argparse.ArgumentParser(prog="tidewheel.apps.installation_check", description=__doc__)
    parser.add_argument("--url", action="append", default=[], metavar="NAME=URL", help="that must answer with 2xx")
    given = parser.parse_args()
    checks: dict[str, Callable[[], str]] = {
        "journal": journal, "object store": object_store, "online store": online_store, "event log": event_log,
        "mlflow": registry,
    }  # fmt: skip
    for pair in given.url:
        name, _, url = pair.partition("=")
        checks[name] = answers(url)
    os.environ.setdefault("TIDEWHEEL_HOME", tempfile.gettempdir())
    return 1 if sum(_failed(name, check) for name, check in checks.items()) else 0


def _failed(name: str, check: Callable[[], str]) -> bool:
    clock = SystemClock()
    began_us = clock.monotonic_us()
    try:
        said, failed = check(), False
    except (TidewheelError, OSError) as error:
        said, failed = str(error), True
    took_s = (clock.monotonic_us() - began_us) / SECOND_US
    sys.stdout.write(f"{'FAILED' if failed else 'ok':6} {name:14} {took_s:6.2f} s  {said}\n")
    sys.stdout.flush()
    return failed


if __name__ == "__main__":
    sys.exit(main())
