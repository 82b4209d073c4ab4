"""A stream worker's lake in a pod: parts go to the object store by a thread, code and older parts come from it.

A part counts as written when the store has it: a pod that goes away before leaves the log's offsets to be read again,
since the next worker starts where the store's parts end.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from tidewheel.adapters.bundle_shelf import fetch_bundle
from tidewheel.adapters.lake_mirror import LakeMirror
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.object_store import ObjectStore, open_object_store
from tidewheel.apps.wanted_code import Wanted
from tidewheel.clock import SECOND_US, Clock
from tidewheel.errors import TidewheelError
from tidewheel.features.lake import replaced_names
from tidewheel.features.stream import Tell

SEND_EVERY_S = 1.0
TIDY_EVERY_US = 60 * SECOND_US


class LakeCopies:
    """``arrive`` and ``bring`` by the worker's thread; ``start`` once, ``close`` once."""

    def __init__(self, home: LocalHome, store: ObjectStore, clock: Clock, tell: Tell) -> None:
        self._home, self._store, self._clock, self._tell = home, store, clock, tell
        self._mirror = LakeMirror(store, home.lake)
        self._folders: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lake-copies", daemon=True)
        self._failing = False
        self._tidied_at_us = clock.monotonic_us()

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Send what is left."""
        self._stop.set()
        self._thread.join()
        self._send()

    def arrive(self, folders: Iterable[Path]) -> None:
        """Bring what the store has of these folders of the lake. Raises Unavailable."""
        for folder in folders:
            name = str(folder.relative_to(self._home.lake))
            n = len(self._mirror.fetch(name))
            self._folders.add(name)
            self._tell("lake_fetched", folder=name, n=n)

    def bring(self, wanted: Wanted) -> None:
        """Fetch project code or a bundle. Raises NotFound, Unavailable, ContractViolation."""
        fetch_bundle(self._store, "projects" if wanted.applied else "bundles", wanted.digest, wanted.folder)

    def _run(self) -> None:
        while not self._stop.wait(SEND_EVERY_S):
            self._send()

    def _send(self) -> None:
        try:
            for folder in (*sorted(self._folders), "_rejected"):
                self._mirror.send(folder)
            if self._clock.monotonic_us() - self._tidied_at_us >= TIDY_EVERY_US:
                self._tidy()
            if self._failing:
                self._failing = False
                self._tell("lake_sent_again")
        except (TidewheelError, OSError) as error:
            if not self._failing:
                self._tell("lake_not_sent", reason=str(error))
            self._failing = True

    def _tidy(self) -> None:
        """What a larger part replaces goes from the store, a minute after that part came there: a job that listed it
        before looks again."""
        self._tidied_at_us = self._clock.monotonic_us()
        for folder in sorted(self._folders):
            here = {path.name for path in (self._home.lake / folder).glob("part-*.parquet")}
            there = self._mirror.names(folder)
            self._mirror.drop(folder, replaced_names(there) - here)


def open_lake_copies(home: LocalHome, clock: Clock, tell: Tell) -> LakeCopies | None:
    """None on one machine, where the lake is the home's own folder."""
    store = open_object_store()
    return None if store is None else LakeCopies(home, store, clock, tell)
