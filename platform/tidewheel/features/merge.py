"""States -> values at a time: the windows of many requests at once, or of one, with the same bits. NumPy only.

Windows are read from the raw events when the request comes, so an idle entity's windows empty by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewheel.features.aggregations import Bools, Floats
from tidewheel.features.declaration import BatchView, WindowedView
from tidewheel.features.kernel import BITS, COLUMNS, ID, TIME, Records, parsed
from tidewheel.features.keys import mixed

Ints = NDArray[np.int64]

_MAX_COMPOSITE = 2**62


@dataclass(frozen=True)
class Spans:
    """Runs [start, end) of one array of events; ``starts`` and ``ends`` share any shape, which results have too.

    The event arrays given to its methods have one entry more than there are events, so that an end is an index.
    """

    starts: Ints
    ends: Ints

    def count(self, member: Bools | None) -> Ints:
        if member is None:
            return self.ends - self.starts
        total = np.zeros(len(member) + 1, dtype=np.int64)
        np.add.accumulate(member, dtype=np.int64, out=total[1:])
        return total[self.ends] - total[self.starts]

    def reduce(self, ufunc: np.ufunc, values: Floats, empty: float) -> Floats:
        """The ufunc over each run; reduceat works run by run, so a result depends on its own run alone."""
        bounds = np.empty(2 * self.starts.size, dtype=np.int64)
        bounds[0::2] = self.starts.ravel()
        bounds[1::2] = self.ends.ravel()
        reduced = ufunc.reduceat(values, bounds)[0::2].reshape(self.starts.shape)
        return np.where(self.ends > self.starts, reduced, empty)

    def squares(self, values: Floats, valid: Bools, center: Floats) -> Floats:
        """Sum of squared distances of the valid values from each run's own center."""
        starts, lengths = self.starts.ravel(), (self.ends - self.starts).ravel()
        offsets = np.cumsum(lengths) - lengths
        index = np.arange(lengths.sum()) + np.repeat(starts - offsets, lengths)
        distances = np.where(valid[index], values[index] - np.repeat(center.ravel(), lengths), 0.0)
        flat = Spans(offsets, offsets + lengths)
        return flat.reduce(np.add, np.append(distances**2, 0.0), 0.0).reshape(self.starts.shape)


class Singles:
    """Runs of one event each, [n, 1]: a reduction of one value is that value, bit for bit."""

    def __init__(self, n: int) -> None:
        self._n = n

    def count(self, member: Bools | None) -> Ints:
        return np.ones((self._n, 1), dtype=np.int64) if member is None else member[: self._n, None].astype(np.int64)

    def reduce(self, ufunc: np.ufunc, values: Floats, empty: float) -> Floats:
        return values[: self._n, None]

    def squares(self, values: Floats, valid: Bools, center: Floats) -> Floats:
        return np.where(valid[: self._n, None], values[: self._n, None] - center, 0.0) ** 2


@dataclass(frozen=True)
class OwnEvents:
    """The events being asked about, one per request, as the view's state would keep them."""

    records: Records  # int64 [n, 3 + n_columns]
    known_id: Bools  # False where the request has no event id: its event is then in no state


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
    unless the view counts the own event as any other.
    """
    if len(t_us) > 1:
        # reduceat also reduces what lies between two runs; ordered by entity and time, hardly anything does.
        order = np.lexsort((t_us, entity_of))
        if (order[1:] < order[:-1]).any():
            mine = None if own is None else OwnEvents(own.records[order], own.known_id[order])
            result = np.empty((len(t_us), len(view.features)))
            result[order] = windowed_values(view, blobs, entity_of[order], t_us[order], mine)
            return result
    records, counts = parsed(blobs, COLUMNS + len(view.state.columns))
    own_known: Bools | None = None
    if own is not None and view.own_event != "as any":
        own_known = _contains(records, counts, entity_of, own)
        if view.own_event == "never" and own_known.any():
            records, counts, entity_of = _without_own(records, counts, entity_of, own, own_known)
    firsts = np.cumsum(counts) - counts
    positions = _positions(records[:, TIME], firsts, counts, entity_of, t_us[:, None] - view.edges_us)
    starts = positions[:, 1:]
    ends = np.empty_like(starts)
    ends[:] = positions[:, :1]
    spans = Spans(starts, ends)
    counting = own is not None and own_known is not None and view.own_event == "counts"
    events = _Columns(records)
    if counting and own is not None and own_known is not None:
        asked, singles = _Columns(own.records), Singles(len(t_us))
        unknown = np.append(~own_known, False)
    result = np.empty((len(t_us), len(view.features)))
    for aggregation, column, bit, indexes in view.groups:
        position = None if column is None else view.state.column_index(column)
        partial = aggregation.partial(spans, events.values(position), events.member(bit))
        if counting and own_known is not None:
            member = asked.member(bit)
            partial = aggregation.merge(
                partial,
                aggregation.partial(singles, asked.values(position), unknown if member is None else member & unknown),
            )
        values = aggregation.finalize(partial)
        for feature_index, window_index in indexes:
            result[:, feature_index] = values[:, window_index]
    return result


def batch_values(view: BatchView, blobs: Sequence[bytes | None], entity_of: Ints, t_us: Ints) -> Floats:
    """float64 [n, k]: columns of the newest row with t - ttl <= time <= t, NaN where there is none."""
    records, counts = parsed(blobs, COLUMNS + len(view.state.columns))
    if not len(records):
        return np.full((len(t_us), len(view.columns)), np.nan)
    firsts = np.cumsum(counts) - counts
    after = _positions(records[:, TIME], firsts, counts, entity_of, t_us[:, None])[:, 0]
    newest = records[after - 1]  # where there is none this is a row of somebody else, and dropped
    fresh = (after > firsts[entity_of]) & (newest[:, TIME] >= t_us - view.ttl_us)
    positions = [COLUMNS + view.state.column_index(column) for column in view.columns]
    return np.where(fresh[:, None], newest[:, positions].view(np.float64), np.nan)


class _Columns:
    """Fields of records as arrays with one entry more than there are records, each made once."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._values: dict[int, Floats] = {}
        self._members: dict[int, Bools] = {}

    def values(self, position: int | None) -> Floats | None:
        if position is None:
            return None
        if position not in self._values:
            padded = np.zeros(len(self._records) + 1, dtype=np.int64)
            padded[:-1] = self._records[:, COLUMNS + position]
            self._values[position] = padded.view(np.float64)
        return self._values[position]

    def member(self, bit: int | None) -> Bools | None:
        if bit is None:
            return None
        if bit not in self._members:
            padded = np.zeros(len(self._records) + 1, dtype=bool)
            padded[:-1] = (self._records[:, BITS] >> bit) & 1
            self._members[bit] = padded
        return self._members[bit]


def _positions(times: Ints, firsts: Ints, counts: Ints, entity_of: Ints, edges: Ints) -> Ints:
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


def _contains(records: Records, counts: Ints, entity_of: Ints, own: OwnEvents) -> Bools:
    """Whether each request's own event is in the state it reads, with a time that has come by the request's."""
    ids, wanted, asked_us = records[:, ID], own.records[:, ID], own.records[:, TIME]
    if len(counts) == 1 and len(wanted) == 1:
        return np.asarray(own.known_id & ((ids == wanted[0]) & (records[:, TIME] <= asked_us[0])).any())
    if not len(ids):
        return np.zeros(len(wanted), dtype=bool)
    salts = mixed(np.arange(1, len(counts) + 1, dtype=np.uint64))
    held = ids.view(np.uint64) ^ np.repeat(salts, counts)
    sought = wanted.view(np.uint64) ^ salts[entity_of]
    order = np.argsort(held)
    place = order[np.minimum(np.searchsorted(held[order], sought), len(order) - 1)]
    return np.asarray(own.known_id & (held[place] == sought) & (records[place, TIME] <= asked_us))


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
