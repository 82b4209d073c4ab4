"""What was last read from the online store, kept for the moment when the store does not answer.

State is remembered, not vectors: a vector computed from it still has the request's own fields, its own event and
windows as of the request's time. Age counts in event time, so that a replay forgets as fast as real life.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

from tidewheel.features.ports import Wanted

MAX_BYTES = 64 * 2**20
_ENTRY_BYTES = 250  # what an entry costs besides its value

Entries = dict[str, dict[bytes, tuple[int, bytes | None]]]  # by state and key: when, and what


class LastGood:
    """Newest values by state and key. Two generations: what was not read again while one filled up is forgotten.

    One thread remembers, any may recall.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._young: Entries = {}
        self._old: Entries = {}
        self._half_bytes = max_bytes // 2
        self._value_bytes = 1000.0  # moving mean
        self._n = 0

    def remember(self, wanted: Wanted, found: Sequence[Sequence[bytes | None]], at_us: int) -> None:
        for (state, keys), values in zip(wanted, found, strict=True):
            entries = self._young.setdefault(state.state_id, {})
            before = len(entries)
            entries.update(zip(keys, zip(repeat(at_us), values), strict=True))  # repeat has no end
            self._n += len(entries) - before
            if values:
                self._value_bytes += 0.01 * (len(values[0] or b"") - self._value_bytes)
        if self._n * (self._value_bytes + _ENTRY_BYTES) > self._half_bytes:
            self._old, self._young, self._n = self._young, {}, 0

    def recall(self, wanted: Wanted, since_us: int) -> tuple[list[list[bytes | None]], list[list[bool]]]:
        """Values that were read at event time ``since_us`` or later, and which are known; parallel to ``wanted``."""
        values: list[list[bytes | None]] = []
        known: list[list[bool]] = []
        for state, keys in wanted:
            young, old = self._young.get(state.state_id, {}), self._old.get(state.state_id, {})
            found = [young.get(key) or old.get(key) or (since_us - 1, None) for key in keys]
            known.append([at_us >= since_us for at_us, _ in found])
            values.append([value if at_us >= since_us else None for at_us, value in found])
        return values, known
