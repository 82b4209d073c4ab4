"""The partials of every window of many requests, from events (exact) or from tiles and events (hop). NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tidewheel.features.declaration import WindowedView
from tidewheel.features.kernel import ASKED, States
from tidewheel.features.partials import Part, Partial
from tidewheel.features.record_events import TIME, RecordEvents, Records
from tidewheel.features.spans import Bools, Ints, Spans
from tidewheel.features.tiles import TileLayout

_MAX_COMPOSITE = 2**62


@dataclass(frozen=True)
class Place:
    """Events of entities on end, and n requests: each reads one entity at one time."""

    records: Records
    counts: Ints
    entity_of: Ints  # [n], whose events it reads
    t_us: Ints  # [n]
    dropped_us: Ints  # [n], the newest event of the entity that is no record any more

    def spans(self, from_us: Ints, until_us: Ints) -> Spans:
        """Events later than ``from_us`` [n, m] and not later than ``until_us`` [n, 1]."""
        starts, ends = self._after(from_us), self._after(until_us)
        return Spans(starts, np.repeat(ends, starts.shape[1], axis=1))

    def _after(self, edges: Ints) -> Ints:
        return self.line.after(self.entity_of, edges)

    @cached_property
    def line(self) -> EventLine:
        return EventLine(self.records[:, TIME], self.counts)


def exact_partials(view: WindowedView, place: Place, added: Bools | None) -> tuple[list[Partial], Bools | None]:
    """Partials [n, windows] of the view's parts, and which windows are known whole (None: all)."""
    until_us = (place.t_us - view.delay_us)[:, None]
    from_us = until_us - view.windows_array_us
    spans = place.spans(from_us, until_us)
    partials = _of_events(view, place.records, spans)
    counts = spans.lengths if added is None else spans.lengths + added[:, None]
    whole = (from_us >= place.dropped_us[:, None]) & (counts <= _limit(view))
    return partials, None if whole.all() else whole


def _limit(view: WindowedView) -> int:
    if view.max_events is None:
        raise TypeError("a view of precision hop has no limit of events")
    return view.max_events


def hop_partials(
    view: WindowedView, layout: TileLayout, place: Place, held: States, state_of: Ints, own_us: Ints
) -> tuple[list[Partial], Bools | None]:
    """The same from tiles of the states that ``state_of`` [n] names. ``own_us`` [n]: the time of the own event where
    it must not count, else the request's; its tile and what follows are read from events.

    A window takes tiles of its own hop up to the one that holds the request, there finer tiles, then events. Behind
    a delay both edges are edges of tiles.
    """
    plan = view.hop_plan
    ended_us = (place.t_us - layout.delay_us)[:, None]
    first = (ended_us - view.windows_array_us) // plan.hops_us  # of the window's own hop, [n, windows]
    if layout.delay_us:
        starts, ends = first[:, :, None], (ended_us // plan.hops_us)[:, :, None]
    else:
        # An own event before the window needs no care.
        head_us = np.maximum(own_us[:, None], first * plan.hops_us + 1)
        ends = (head_us[:, :, None] - 1) // layout.hops_us
        starts = np.empty_like(ends)
        starts[:, :, -1] = 0
        starts[:, :, :-1] = ends[:, :, 1:] * plan.hops_in_next
        np.copyto(starts, first[:, :, None], where=plan.own_level)
    # Where a level is not read its run is empty.
    begins = np.maximum(starts, -1) + plan.numbers
    ends = np.where(plan.reads, np.maximum(ends, -1) + plan.numbers, begins)
    asked_us = held.headers[state_of, ASKED]
    whole: Bools | None = None
    if (own_us < asked_us).any():
        whole = ((begins == ends) | (begins >= layout.starts(asked_us)[:, None, :])).all(axis=2)
    spans = _tile_spans(layout, held, state_of, begins, ends)
    partials = [_over_levels(bound.part, bound.part.combine(spans, layout.fields(held.tiles, number)))
                for number, bound in enumerate(layout.parts)]  # fmt: skip
    if layout.delay_us:
        return partials, whole
    upto_us = (head_us - 1) // layout.levels[0].hop_us * layout.levels[0].hop_us
    heads = _of_events(view, place.records, place.spans(upto_us, place.t_us[:, None]))
    partials = [bound.part.merge(tiles, head) for bound, tiles, head in zip(layout.parts, partials, heads, strict=True)]
    complete = upto_us >= place.dropped_us[:, None]
    return partials, complete if whole is None else complete & whole


def _over_levels(part: Part, found: Partial) -> Partial:
    """Partials [n, windows] of partials [n, windows, levels], which follow one another from the coarsest on."""
    levels = found[0].shape[2]
    merged = tuple(field[:, :, levels - 1] for field in found)
    for number in reversed(range(levels - 1)):
        merged = part.merge(merged, tuple(field[:, :, number] for field in found))
    return merged


def _of_events(view: WindowedView, records: Records, spans: Spans) -> list[Partial]:
    events = RecordEvents(records, view.state.integers)
    partials = []
    for bound in view.parts:
        arrays, member = events.bound(bound)
        partials.append(bound.part.partial(spans, arrays, member))
    return partials


def _tile_spans(layout: TileLayout, held: States, state_of: Ints, begins: Ints, ends: Ints) -> Spans:
    """Tiles of each request's state from number ``begins`` up to ``ends`` (excluded), [n, windows, levels] each."""
    numbers = layout.tile_numbers(held.tiles)
    if len(held.tile_counts) > 1:
        numbers = numbers + np.repeat(np.arange(len(held.tile_counts)) << 32, held.tile_counts)
        places = (state_of << 32)[:, None, None]
        begins, ends = begins + places, ends + places
    return Spans(numbers.searchsorted(begins), numbers.searchsorted(ends))


class EventLine:
    """Times of entities' events on end, each entity's sorted, to be searched for many requests at once."""

    def __init__(self, times: Ints, counts: Ints) -> None:
        self._times, self._counts = times, counts
        self._low = self._high = self._span = 0
        self._line: Ints | None = None  # one sorted array over all entities: each has a stretch of numbers of its own
        if len(counts) > 1 and len(times):
            self._low, self._high = int(times.min()), int(times.max())
            self._span = self._high - self._low + 2
            if self._span * len(counts) < _MAX_COMPOSITE:
                stretch = np.repeat(np.arange(len(counts), dtype=np.int64) * self._span, counts)
                self._line = times - self._low + stretch

    def after(self, entity_of: Ints, edges: Ints) -> Ints:
        """Index of the first event later than each edge [n, m], within the request's own entity."""
        if len(self._counts) == 1:
            return self._times.searchsorted(edges, side="right")
        if not len(self._times):
            return np.zeros(edges.shape, dtype=np.int64)
        if self._line is not None:
            inside = np.maximum(np.minimum(edges, self._high), self._low - 1)
            return self._line.searchsorted(inside - self._low + (entity_of * self._span)[:, None], side="right")
        firsts = np.cumsum(self._counts) - self._counts
        result = np.empty(edges.shape, dtype=np.int64)
        for entity in np.unique(entity_of):
            mine = entity_of == entity
            part = self._times[firsts[entity] : firsts[entity] + self._counts[entity]]
            result[mine] = firsts[entity] + np.searchsorted(part, edges[mine], side="right")
        return result
