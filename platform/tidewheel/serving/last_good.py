"""What was last read from the online store, kept for the moment when the store does not answer.

State is remembered, not vectors: a vector computed from it still has the request's own fields, its own event and
windows as of the request's time. Age counts in event time, so that a replay forgets as fast as real life.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from tidewheel.errors import Unavailable
from tidewheel.features.declaration import StateView
from tidewheel.features.ports import OnlineStore, Progress, StateRows, Wanted

MAX_BYTES = 64 * 2**20
_ENTRY_BYTES = 200  # what an entry costs besides its value

Lookup = tuple[str, bytes]


class LastGood:
    """Lookups and their newest values, the oldest forgotten first. Thread-safe."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._entries: dict[Lookup, tuple[int, bytes | None]] = {}
        self._bytes, self._max_bytes = 0, max_bytes
        self._lock = threading.Lock()

    def remember(self, wanted: Wanted, found: Sequence[Sequence[bytes | None]], at_us: int) -> None:
        with self._lock:
            for (state, keys), values in zip(wanted, found, strict=True):
                for key, value in zip(keys, values, strict=True):
                    old = self._entries.pop((state.state_id, key), None)
                    if old is not None:
                        self._bytes -= _ENTRY_BYTES + len(old[1] or b"")
                    self._entries[(state.state_id, key)] = (at_us, value)
                    self._bytes += _ENTRY_BYTES + len(value or b"")
            while self._bytes > self._max_bytes:
                _, dropped = self._entries.pop(next(iter(self._entries)))
                self._bytes -= _ENTRY_BYTES + len(dropped or b"")

    def recall(self, lookup: Lookup, since_us: int) -> tuple[bool, bytes | None]:
        """(known, value) where it was read at event time ``since_us`` or later."""
        with self._lock:
            at_us, value = self._entries.get(lookup, (since_us - 1, None))
        return at_us >= since_us, value


class RememberingStore:
    """An OnlineStore that remembers what it reads. ``at_us`` is set by the predictor before each read."""

    def __init__(self, store: OnlineStore, memory: LastGood) -> None:
        self._store, self._memory = store, memory
        self.at_us = 0

    def read(self, wanted: Wanted) -> list[list[bytes | None]]:
        found = self._store.read(wanted)
        self._memory.remember(wanted, found, self.at_us)
        return found

    def write(self, state: StateView, partition: int, rows: StateRows, progress: Progress) -> None:
        raise Unavailable("a model server writes no features")

    def progress(self, states: Sequence[StateView]) -> dict[str, dict[int, Progress]]:
        return self._store.progress(states)

    def keep_only(self, project: str, states: Sequence[StateView]) -> list[str]:
        raise Unavailable("a model server writes no features")

    def close(self) -> None:
        self._store.close()


class RecallingStore:
    """An OnlineStore over memory alone: what was read since ``since_us``, else nothing. ``missed`` counts the rest.

    With no memory it is the empty store, whose vectors are the declared defaults.
    """

    def __init__(self, memory: LastGood | None) -> None:
        self._memory = memory
        self.since_us = 0
        self.missed = 0

    def read(self, wanted: Wanted) -> list[list[bytes | None]]:
        return [[self._recalled((state.state_id, key)) for key in keys] for state, keys in wanted]

    def _recalled(self, lookup: Lookup) -> bytes | None:
        known, value = (False, None) if self._memory is None else self._memory.recall(lookup, self.since_us)
        self.missed += not known
        return value if known else None

    def write(self, state: StateView, partition: int, rows: StateRows, progress: Progress) -> None:
        raise Unavailable("memory of the last values takes no writes")

    def progress(self, states: Sequence[StateView]) -> dict[str, dict[int, Progress]]:
        return {}

    def keep_only(self, project: str, states: Sequence[StateView]) -> list[str]:
        raise Unavailable("memory of the last values takes no writes")

    def close(self) -> None:
        pass
