"""States -> values at a time: the windows of many requests at once, or of one, with the same bits. NumPy only.

Windows are read from events and tiles when the request comes, so an idle entity's windows empty by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidewheel.features.declaration import BatchView, WindowedView
from tidewheel.features.kernel import DROPPED, parsed
from tidewheel.features.keys import mixed
from tidewheel.features.partials import Partial
from tidewheel.features.record_events import ID, TIME, RecordEvents, Records
from tidewheel.features.spans import Bools, Floats, Ints, Singles
from tidewheel.features.window_partials import EventLine, Place, exact_partials, hop_partials


@dataclass(frozen=True)
class OwnEvents:
    """The events being asked about, one per request, as the view's state would keep them."""

    records: Records  # int64 [n, 3 + n_columns]
    known_id: Bools  # False where the request has no event id: its event is then in no state
    came: Bools | None = None  # whether it came before the request, where that is known better than by the state

    def taken(self, rows: Any) -> OwnEvents:
        """Those of some requests, by index."""
        return OwnEvents(self.records[rows], self.known_id[rows], None if self.came is None else self.came[rows])


def published_values(view: WindowedView | BatchView, blobs: Sequence[bytes], newest_us: Ints) -> Floats:
    """float64 [n, k]: the view's features of n entities as of their newest events, which count as any other."""
    each = np.arange(len(blobs), dtype=np.int64)
    if isinstance(view, BatchView):
        return batch_values(view, blobs, each, newest_us)
    return windowed_values(view, blobs, each, newest_us, None)


def windowed_values(
    view: WindowedView, blobs: Sequence[bytes | None], entity_of: Ints, t_us: Ints, own: OwnEvents | None
) -> Floats:
    """float64 [n, k]: the view's features at each request's time, defaults not applied.

    ``blobs`` are states of different entities, ``entity_of`` says which one a request reads. ``own`` is needed
    unless the view counts the own event as any other. A value is missing, too, where the state no longer holds all
    of its window.
    """
    if len(t_us) > 1:
        # reduceat also reduces what lies between two runs; ordered by entity and time, hardly anything does.
        order = np.lexsort((t_us, entity_of))
        if (order[1:] < order[:-1]).any():
            mine = None if own is None else own.taken(order)
            result = np.empty((len(t_us), len(view.features)))
            result[order] = windowed_values(view, blobs, entity_of[order], t_us[order], mine)
            return result
    held = parsed(view.state, blobs)
    records, counts = held.records, held.counts
    dropped_us = held.headers[entity_of, DROPPED]
    own_us, state_of = t_us, entity_of
    added: Bools | None = None  # the own event counts and is not in the state
    if own is not None and view.own_event != "as any":
        known, known_us = known_events(records, counts, entity_of, own)
        if view.own_event == "counts":
            added = ~known if own.came is None else ~own.came
        elif known.any():
            own_us = np.where(known, known_us, t_us)
            records, counts, entity_of = _without_own(records, counts, entity_of, own, known)
    place = Place(records, counts, entity_of, t_us, dropped_us)
    if view.state.tiles is None:
        partials, whole = exact_partials(view, place, added)
    else:
        partials, whole = hop_partials(view, view.state.tiles, place, held, state_of, own_us)
    if added is not None and own is not None:
        partials = _with_own(view, partials, own, added)
    asked_us = t_us[:, None]
    result = np.empty((len(t_us), len(view.features)))
    for group in view.groups:
        fields = [field for place_of in group.parts for field in partials[place_of]]
        values = group.aggregation.finalize(tuple(fields), asked_us)
        values = values if whole is None else np.where(whole, values, np.nan)
        result[:, group.features] = values[:, group.windows]
    return result


def _with_own(view: WindowedView, partials: list[Partial], own: OwnEvents, added: Bools) -> list[Partial]:
    """Partials and the own events of those requests whose state does not have them."""
    asked = RecordEvents(own.records, view.state.integers)
    singles = Singles(len(added))
    counted = np.append(added, False)
    merged = []
    for bound, partial in zip(view.parts, partials, strict=True):
        events, member = asked.bound(bound)
        mine = bound.part.partial(singles, events, counted if member is None else member & counted)
        merged.append(bound.part.merge(partial, mine))
    return merged


def batch_values(view: BatchView, blobs: Sequence[bytes | None], entity_of: Ints, t_us: Ints) -> Floats:
    """float64 [n, k]: columns of the newest row with t - ttl <= time <= t, NaN where there is none."""
    held = parsed(view.state, blobs)
    if not len(held.records):
        return np.full((len(t_us), len(view.columns)), np.nan)
    firsts = np.cumsum(held.counts) - held.counts
    after = EventLine(held.records[:, TIME], held.counts).after(entity_of, t_us[:, None])[:, 0]
    newest = held.records[after - 1]  # where there is none this is a row of somebody else, and dropped
    fresh = (after > firsts[entity_of]) & (newest[:, TIME] >= t_us - view.ttl_us)
    rows = RecordEvents(newest, view.state.integers)
    values = np.empty((len(t_us), len(view.columns)))
    for number, column in enumerate(view.columns):
        place = view.state.column_index(column)
        values[:, number] = np.where(rows.valid(place), rows.values(place), np.nan)[:-1]
    return np.where(fresh[:, None], values, np.nan)


def known_events(records: Records, counts: Ints, entity_of: Ints, own: OwnEvents) -> tuple[Bools, Ints]:
    """Whether each request's own event is in the state it reads, with a time that has come by the request's; and
    that time."""
    ids, wanted, asked_us = records[:, ID], own.records[:, ID], own.records[:, TIME]
    if not len(ids):
        return np.zeros(len(wanted), dtype=bool), asked_us
    if len(counts) == 1 and len(wanted) == 1:
        if not (ids == wanted[0]).any():  # nearly always
            return np.zeros(1, dtype=bool), asked_us
        found = np.flatnonzero((ids == wanted[0]) & (records[:, TIME] <= asked_us[0]))
        known = own.known_id & bool(len(found))
        return known, records[found[-1:], TIME] if known[0] else asked_us
    if len(counts) == len(wanted) and (np.bincount(entity_of, minlength=len(counts)) == 1).all():
        # Every entity is asked about once, and nearly always nobody's own event is there yet.
        of_entity = np.empty_like(wanted)
        of_entity[entity_of] = wanted
        if not (ids == np.repeat(of_entity, counts)).any():
            return np.zeros(len(wanted), dtype=bool), asked_us
    salts = mixed(np.arange(1, len(counts) + 1, dtype=np.uint64))
    held = ids.view(np.uint64) ^ np.repeat(salts, counts)
    sought = wanted.view(np.uint64) ^ salts[entity_of]
    order = np.lexsort((records[:, TIME], held))
    held = held[order]
    # Of an id that was forgotten and came again, the newest that is not after the request.
    place = np.searchsorted(held, sought, side="right") - 1
    while len(
        later := np.flatnonzero((place > 0) & (held[place] == sought) & (records[order[place], TIME] > asked_us))
    ):
        place[later] -= 1
    place = order[np.maximum(place, 0)]
    same = (ids.view(np.uint64)[place] == wanted.view(np.uint64)) & (records[place, TIME] <= asked_us)
    firsts = np.cumsum(counts) - counts
    mine = (place >= firsts[entity_of]) & (place < firsts[entity_of] + counts[entity_of])
    return np.asarray(own.known_id & same & mine), records[place, TIME]


def _without_own(
    records: Records, counts: Ints, entity_of: Ints, own: OwnEvents, own_known: Bools
) -> tuple[Records, Ints, Ints]:
    """Give each request whose own event is known a copy of its entity's events without it."""
    firsts = np.cumsum(counts) - counts
    parts, entity_of = [records], entity_of.copy()
    added: list[int] = []
    for request in np.flatnonzero(own_known):
        entity = entity_of[request]
        events = records[firsts[entity] : firsts[entity] + counts[entity]]
        parts.append(events[events[:, ID] != own.records[request, ID]])
        entity_of[request] = len(counts) + len(added)
        added.append(len(parts[-1]))
    return np.concatenate(parts), np.concatenate([counts, np.array(added, dtype=np.int64)]), entity_of
