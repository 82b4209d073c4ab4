"""Aggregations of order and of difference: first, last, time since the last event, distinct values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidewheel.features.aggregations import Reads, SqlEvents, same_type
from tidewheel.features.partials import DIFFERENT, NEVER_US, NEWEST_TIME, Edge, Part, Partial
from tidewheel.features.spans import Floats, Ints


@dataclass(frozen=True)
class AtEdge:
    """The value of the newest or of the oldest event that has one; the id's hash orders equal times."""

    name: str
    newest: bool
    reads: Reads = "numbers"
    tiled: bool = True
    with_request: bool = True
    ordered: bool = True

    def dtype(self, column_type: str | None) -> str:
        return same_type(column_type)

    def parts(self, integer: bool) -> tuple[Part, ...]:
        return (Edge(self.newest, integer),)

    def finalize(self, partial: Partial, t_us: Ints) -> Floats:
        return np.where(partial[0] != NEVER_US, partial[2].astype(np.float64), np.nan)

    def sql(self, events: SqlEvents) -> str:
        pick = "max_by" if self.newest else "min_by"
        place = f"CASE WHEN {events.value} IS NOT NULL THEN ({events.time}, {events.id_hash}) END"
        return f"{pick}({events.value}, {place}){events.over}"


@dataclass(frozen=True)
class Distinct:
    """How many different values; 0 in an empty window. Text is told apart by a 64-bit hash."""

    name: str = "distinct"
    reads: Reads = "values"
    tiled: bool = False
    with_request: bool = True
    ordered: bool = False

    def dtype(self, column_type: str | None) -> str:
        return "int64"

    def parts(self, integer: bool) -> tuple[Part, ...]:
        return (DIFFERENT,)

    def finalize(self, partial: Partial, t_us: Ints) -> Floats:
        sets = partial[0]
        return np.array([len(one) for one in sets.ravel()], dtype=np.float64).reshape(sets.shape)

    def sql(self, events: SqlEvents) -> str:
        return events.dialect.distinct(events.value, events.over)


@dataclass(frozen=True)
class TimeSinceLast:
    """Seconds from the newest event to the time asked about; missing in an empty window."""

    name: str = "time_since_last"
    reads: Reads = "events"
    tiled: bool = True
    with_request: bool = False  # it would always be 0
    ordered: bool = False

    def dtype(self, column_type: str | None) -> str:
        return "float64"

    def parts(self, integer: bool) -> tuple[Part, ...]:
        return (NEWEST_TIME,)

    def finalize(self, partial: Partial, t_us: Ints) -> Floats:
        return np.where(partial[0] != NEVER_US, (t_us - partial[0]) / 1e6, np.nan)

    def sql(self, events: SqlEvents) -> str:
        return f"({events.asked} - max({events.time}){events.over}) / 1e6"


LAST = AtEdge("last", newest=True)
FIRST = AtEdge("first", newest=False)
DISTINCT = Distinct()
TIME_SINCE_LAST = TimeSinceLast()
