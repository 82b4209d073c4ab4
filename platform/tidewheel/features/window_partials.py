"""The partials of every window of many requests, from events (exact) or from tiles and events (hop). NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidewheel.features.declaration import WindowedView
from tidewheel.features.kernel import ASKED, States
from tidewheel.features.partials import Partial
from tidewheel.features.record_events import TIME, RecordEvents, Records
from tidewheel.features.spans import Bools, Ints, Spans
from tidewheel.features.tiles import INDEX_BITS, TileLayout

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
        """Events later than ``from_us`` and not later than ``until_us``, [n, m] each."""
        firsts = np.cumsum(self.counts) - self.counts
        edges = np.concatenate([from_us, until_us], axis=1)
        found = events_after(self.records[:, TIME], firsts, self.counts, self.entity_of, edges)
        starts = found[:, : from_us.shape[1]]
        return Spans(starts, np.broadcast_to(found[:, from_us.shape[1] :], starts.shape))


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
    hops_us = view.hops_array_us
    levels = np.searchsorted(layout.hops_us, hops_us)
    ended_us = (place.t_us - layout.delay_us)[:, None]
    first = (ended_us - view.windows_array_us) // hops_us  # of the window's own hop, [n, windows]
    upto_us = first * hops_us
    # An own event before the window needs no care.
    head_us = ended_us // hops_us * hops_us + 1 if layout.delay_us else np.maximum(own_us[:, None], upto_us + 1)
    asked_us = held.headers[state_of, ASKED]
    oldest = layout.starts(asked_us)
    whole = np.ones(first.shape, dtype=bool)
    partials: list[Partial] = []
    for number in reversed(range(len(layout.levels))):
        reads = levels == number if layout.delay_us else levels >= number
        if not reads.any():
            continue
        hop_us = layout.levels[number].hop_us
        start, end = upto_us // hop_us, (head_us - 1) // hop_us
        base = (number << INDEX_BITS) + 1
        begins = base + np.maximum(start, -1)
        spans = _tile_spans(layout, held, state_of, begins, np.where(reads, base + np.maximum(end, -1), begins))
        whole &= ~reads | (start == end) | (begins >= oldest[:, number, None])
        upto_us = np.where(reads, end * hop_us, upto_us)
        found = [bound.part.combine(spans, layout.fields(held.tiles, place_of))
                 for place_of, bound in enumerate(layout.parts)]  # fmt: skip
        partials = _merged(layout, partials, found)
    if not layout.delay_us:
        heads = _of_events(view, place.records, place.spans(upto_us, place.t_us[:, None]))
        partials = _merged(layout, partials, heads)
        whole &= upto_us >= place.dropped_us[:, None]
    return partials, None if whole.all() else whole


def _merged(layout: TileLayout, earlier: list[Partial], later: list[Partial]) -> list[Partial]:
    if not earlier:
        return later
    return [bound.part.merge(one, other) for bound, one, other in zip(layout.parts, earlier, later, strict=True)]


def _of_events(view: WindowedView, records: Records, spans: Spans) -> list[Partial]:
    events = RecordEvents(records, view.state.integers)
    partials = []
    for bound in view.parts:
        arrays, member = events.bound(bound)
        partials.append(bound.part.partial(spans, arrays, member))
    return partials


def _tile_spans(layout: TileLayout, held: States, state_of: Ints, begins: Ints, ends: Ints) -> Spans:
    """Tiles of each request's state from number ``begins`` up to ``ends`` (excluded), [n, windows] each."""
    numbers = layout.tile_numbers(held.tiles)
    if len(held.tile_counts) > 1:
        numbers = numbers + np.repeat(np.arange(len(held.tile_counts)) << 32, held.tile_counts)
        begins, ends = begins + (state_of << 32)[:, None], ends + (state_of << 32)[:, None]
    found = np.searchsorted(numbers, np.concatenate([begins, ends], axis=1))
    return Spans(found[:, : begins.shape[1]], found[:, begins.shape[1] :])


def events_after(times: Ints, firsts: Ints, counts: Ints, entity_of: Ints, edges: Ints) -> Ints:
    """Index of the first event later than each edge [n, m], within the request's own entity."""
    if len(counts) == 1:
        return np.searchsorted(times, edges, side="right").astype(np.int64)
    if not len(times):
        return np.zeros(edges.shape, dtype=np.int64)
    low, high = int(times.min()), int(times.max())
    span = high - low + 2
    if span * len(counts) < _MAX_COMPOSITE:
        # One sorted array over all entities: each has a stretch of numbers of its own.
        stretch = np.repeat(np.arange(len(counts), dtype=np.int64) * span, counts)
        wanted = np.clip(edges, low - 1, high) - low + (entity_of * span)[:, None]
        return np.searchsorted(times - low + stretch, wanted, side="right").astype(np.int64)
    result = np.empty(edges.shape, dtype=np.int64)
    for entity in np.unique(entity_of):
        mine = entity_of == entity
        part = times[firsts[entity] : firsts[entity] + counts[entity]]
        result[mine] = firsts[entity] + np.searchsorted(part, edges[mine], side="right")
    return result
