"""Which arrivals are new: the first of an event id, the last row of a time. NumPy only.

What an entity remembers when an event comes depends on the events before it, and never on how those were cut into
batches.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from tidewheel.features.declaration import StateView
from tidewheel.features.keys import mixed
from tidewheel.features.partials import NEVER_US
from tidewheel.features.spans import Bools, Ints

_TIME, _ID = 0, 1
Pairs = NDArray[np.int64]  # [n, 2]: time, id hash


def first_arrivals(
    state: StateView, old: Pairs, old_entities: Ints, new: Pairs, codes: Ints, newest: Ints, dropped: Ints
) -> Bools:
    """Which of the new events, in order of arrival, are no repetition of an id that is still remembered.

    An id is remembered while its event is less than ``state.dedup_us`` older than the newest one and not dropped.
    ``newest`` and ``dropped`` are per entity, as of before.
    """
    stays = np.ones(len(new), dtype=bool)
    salts = mixed(np.arange(1, len(newest) + 1, dtype=np.uint64)).view(np.int64)
    arrived = new[:, _ID] ^ salts[codes]
    known = np.sort(arrived)
    if not len(known):
        return stays
    held = old[:, _ID] ^ salts[old_entities]
    place = np.minimum(np.searchsorted(known, held), len(known) - 1)
    repeated = np.concatenate([known[1:][known[1:] == known[:-1]], held[known[place] == held]])
    if not len(repeated):
        return stays
    # Hardly any entity: these are taken one event at a time.
    suspects = np.unique(codes[np.isin(arrived, repeated)])
    wanted = np.zeros(len(newest), dtype=bool)
    wanted[suspects] = True
    rows_of: dict[int, list[int]] = {int(entity): [] for entity in suspects}
    for row in np.flatnonzero(wanted[codes]).tolist():
        rows_of[int(codes[row])].append(row)
    counts = np.bincount(old_entities, minlength=len(newest))
    ends = np.cumsum(counts)
    for entity, rows in rows_of.items():
        before = old[ends[entity] - counts[entity] : ends[entity]]
        memory = _Memory(state, before, int(newest[entity]), int(dropped[entity]))
        for row in rows:
            stays[row] = memory.takes(int(new[row, _TIME]), int(new[row, _ID]))
    return stays


class _Memory:
    """What one entity knows while its events come one by one."""

    def __init__(self, state: StateView, before: Pairs, newest_us: int, dropped_us: int) -> None:
        self._dedup_us = state.dedup_us
        self._capacity = state.capacity
        self._times = before[:, _TIME].tolist()  # sorted, so a heap
        self._newest_us, self._dropped_us = newest_us, dropped_us
        self._by_id: dict[int, int] = {}
        for time_us, one in before.tolist():
            self._by_id[one] = max(time_us, self._by_id.get(one, NEVER_US))

    def takes(self, time_us: int, one: int) -> bool:
        known_us = self._by_id.get(one, NEVER_US)
        if known_us > NEVER_US and known_us > self._newest_us - self._dedup_us and known_us > self._dropped_us:
            return False
        self._by_id[one] = max(time_us, known_us)
        self._newest_us = max(self._newest_us, time_us)
        heapq.heappush(self._times, time_us)
        while len(self._times) > self._capacity:
            self._dropped_us = max(self._dropped_us, heapq.heappop(self._times))
        return True


def last_arrivals(old: Pairs, old_entities: Ints, new: Pairs, codes: Ints) -> tuple[Pairs, Ints, Pairs, Ints]:
    """Rows and entities, old and new, without those that a later arrival of their time replaces."""
    rows, entities = np.concatenate([old, new]), np.concatenate([old_entities, codes])
    order = np.lexsort((rows[:, _TIME], entities))
    repeats = (entities[order][1:] == entities[order][:-1]) & (rows[order, _TIME][1:] == rows[order, _TIME][:-1])
    stays = np.ones(len(rows), dtype=bool)
    stays[order[:-1][repeats]] = False
    n_old = len(old)
    return old[stays[:n_old]], old_entities[stays[:n_old]], new[stays[n_old:]], codes[stays[n_old:]]
