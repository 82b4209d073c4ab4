"""FeatureSet: everything that a project's ``features.py`` says, checked and frozen.

Made by ``load.py``; read by every engine, the reader, training and the bundle. Times are microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tidewheel.clock import DAY_US
from tidewheel.features.aggregations import Aggregation
from tidewheel.features.tiles import INDEX_BITS, BoundPart, TileLayout

# Requests may be this much older than the newest event of their entity and still read whole windows: a day's
# events are ingested in bulk before that day's requests are replayed, a batch of rows is scored a day late.
READ_SLACK_US = 2 * DAY_US

Filter = tuple[tuple[str, Any], ...]  # column and the value it must equal, all of them, sorted by column
ViewKind = Literal["windowed", "batch", "request"]
INTEGER_TYPES = ("int64", "int32", "bool", "string")  # kept as int64; text by its 64-bit hash


@dataclass(frozen=True)
class RequestSchema:
    """What a request carries: the request source's own column names."""

    source: str
    event_time: str
    event_id: str
    keys: Mapping[str, str]  # key column -> int64 | string
    columns: Mapping[str, str]  # request column -> spec column type; the label is not among them

    @property
    def fields(self) -> tuple[str, ...]:
        """Everything a request function may ask for by name."""
        return (*self.keys, self.event_time, self.event_id, *self.columns)


@dataclass(frozen=True)
class StateView:
    """What the online store keeps per entity for one view. Equal ids mean equal declarations: a changed one is a new
    state, which is filled from the start of history while the old one lives on for the versions that read it."""

    state_id: str  # digest of the view's whole declaration
    kind: Literal["windowed", "batch"]
    project: str
    view: str
    source: str = field(compare=False)
    topic: str = field(compare=False)
    keys: tuple[tuple[str, str], ...] = field(compare=False)  # (column, int64 | string), sorted by column
    columns: tuple[tuple[str, str], ...] = field(compare=False)  # (column, spec type)
    filters: tuple[Filter, ...] = field(compare=False)  # filter i is bit i of a record's bits
    retention_us: int = field(compare=False)
    published: tuple[tuple[str, str], ...] = field(compare=False)  # (feature, dtype): what stock Feast clients read
    event_time: str = field(compare=False)
    event_id: str | None = field(compare=False)
    dedup_us: int = field(default=0, compare=False)  # how long an event id is remembered
    capacity: int = field(default=2**31, compare=False)  # at most so many events are kept (exact)
    tiles: TileLayout | None = field(default=None, compare=False)  # precision hop

    @property
    def feast_view(self) -> str:
        """Name of the Feast FeatureView that holds this state."""
        return f"{self.view}_{self.state_id[:8]}"

    @property
    def record_bytes(self) -> int:
        """Bytes per event: time, event id hash, filter and null bits, and one 64-bit field per column."""
        return 8 * (3 + len(self.columns))

    @cached_property
    def integers(self) -> tuple[bool, ...]:
        """Which columns are kept as int64, with a null bit each."""
        return tuple(kind in INTEGER_TYPES for _, kind in self.columns)

    def column_index(self, column: str) -> int:
        return [name for name, _ in self.columns].index(column)


@dataclass(frozen=True)
class WindowedFeature:
    """One aggregation over one window of its view; filters are bits of the view's state."""

    name: str
    aggregation: Aggregation
    column: str | None
    filter_index: int | None  # the events that count, None: every event
    window_index: int
    default: float | None
    dtype: str = "float64"
    condition_index: int | None = None  # what an aggregation of a condition is of


def bound_parts(
    columns: tuple[tuple[str, str], ...],
    aggregation: Aggregation,
    column: str | None,
    condition: int | None,
    member: int | None,
) -> tuple[BoundPart, ...]:
    """Parts of an aggregation, bound to what they read in a state of these columns."""
    names = [name for name, _ in columns]
    place = None if column is None else names.index(column)
    integer = place is not None and columns[place][1] in INTEGER_TYPES
    return tuple(
        BoundPart(
            part,
            place if part.reads == "values" else None,
            condition if part.reads == "condition" else None,
            member,
        )
        for part in aggregation.parts(integer)
    )


def view_parts(columns: tuple[tuple[str, str], ...], features: tuple[WindowedFeature, ...]) -> tuple[BoundPart, ...]:
    """Parts of all features, each once, in order."""
    found: dict[BoundPart, None] = {}
    for feature in features:
        parts = bound_parts(columns, feature.aggregation, feature.column, feature.condition_index, feature.filter_index)
        found.update(dict.fromkeys(parts))
    return tuple(found)


@dataclass(frozen=True)
class FeatureGroup:
    """One aggregation of one column and filter: features ``features`` are its values over windows ``windows``, both
    as NumPy indexes (a slice where they follow one another, which is many times faster)."""

    aggregation: Aggregation
    parts: tuple[int, ...]  # places among the view's parts
    features: slice | list[int]
    windows: slice | list[int]


def _index(places: list[int]) -> slice | list[int]:
    follow = places == list(range(places[0], places[0] + len(places)))
    return slice(places[0], places[0] + len(places)) if follow else places


@dataclass(frozen=True)
class HopPlan:
    """How the windows of a view read the levels of its tiles; masks are [1, windows, levels]."""

    hops_us: NDArray[np.int64]  # [windows]
    own_level: NDArray[np.bool_]  # the window's own hop
    reads: NDArray[np.bool_]  # levels that the window reads: its own and, without a delay, finer ones
    numbers: NDArray[np.int64]  # [levels], number of each level's tile 0
    hops_in_next: NDArray[np.int64]  # [levels - 1], how many hops make one of the next coarser level


@dataclass(frozen=True)
class WindowedView:
    """Aggregations over (t-D-W, t-D] of one entity's events."""

    name: str
    source: str
    keys: tuple[str, ...]  # columns that name the entity, sorted
    windows_us: tuple[int, ...]
    delay_us: int
    include_request: bool
    of_request_source: bool
    features: tuple[WindowedFeature, ...]
    state: StateView
    freshness_us: int | None
    line: int = field(compare=False)
    kind: ViewKind = "windowed"
    max_events: int | None = None  # precision exact: a window with more of them is missing
    hops_us: tuple[int, ...] = ()  # precision hop: hop of each window
    owner: str = ""
    description: str = ""

    @property
    def precision(self) -> Literal["exact", "hop"]:
        return "hop" if self.hops_us else "exact"

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @cached_property
    def windows_array_us(self) -> NDArray[np.int64]:
        return np.array(self.windows_us, dtype=np.int64)

    @cached_property
    def hop_plan(self) -> HopPlan:
        if self.state.tiles is None:
            raise TypeError("a view of precision exact has no tiles")
        hops, levels_us = np.array(self.hops_us, dtype=np.int64), self.state.tiles.hops_us
        number = np.arange(len(levels_us))
        own = np.searchsorted(levels_us, hops)[:, None]
        reads = (number == own) if self.delay_us else (number <= own)
        base = (number << INDEX_BITS) + 1
        return HopPlan(hops, (number == own)[None], reads[None], base, levels_us[1:] // levels_us[:-1])

    @cached_property
    def groups(self) -> tuple[FeatureGroup, ...]:
        """Features that share one aggregation over all windows, with the places of its parts among ``parts``."""
        places = {bound: place for place, bound in enumerate(self.parts)}
        groups: dict[tuple[Any, ...], list[tuple[int, int]]] = {}
        for index, feature in enumerate(self.features):
            same = (feature.aggregation, feature.column, feature.condition_index, feature.filter_index)
            groups.setdefault(same, []).append((index, feature.window_index))
        return tuple(
            FeatureGroup(
                aggregation,
                tuple(places[bound] for bound in bound_parts(self.state.columns, aggregation, *rest)),
                _index([index for index, _ in members]),
                _index([window for _, window in members]),
            )
            for (aggregation, *rest), members in groups.items()
        )

    @cached_property
    def parts(self) -> tuple[BoundPart, ...]:
        """What the features are made of, each once."""
        return view_parts(self.state.columns, self.features)

    @property
    def own_event(self) -> Literal["counts", "never", "as any"]:
        """What the event being asked about does: by declaration it counts once or never, whether it is already
        known or not; in another source (or behind a delay) it is an event like any other."""
        if self.include_request:
            return "counts"
        return "never" if self.of_request_source and self.delay_us == 0 else "as any"


@dataclass(frozen=True)
class BatchView:
    """Columns of the newest row with t-ttl <= time <= t."""

    name: str
    source: str
    keys: tuple[str, ...]  # columns that name the entity, sorted
    columns: tuple[str, ...]
    ttl_us: int
    state: StateView
    freshness_us: int | None
    line: int = field(compare=False)
    kind: ViewKind = "batch"
    owner: str = ""
    description: str = ""

    @property
    def feature_names(self) -> tuple[str, ...]:
        return self.columns


@dataclass(frozen=True)
class RequestView:
    """One function of request fields and of features declared before it."""

    name: str
    arguments: tuple[str, ...]
    function: Callable[..., Any] = field(compare=False)
    dtype: str
    line: int = field(compare=False)
    kind: ViewKind = "request"
    owner: str = ""
    description: str = ""

    @property
    def feature_names(self) -> tuple[str, ...]:
        return (self.name,)


View = WindowedView | BatchView | RequestView


@dataclass(frozen=True)
class FeatureSet:
    """The model's inputs, in order; the per-feature tuples run parallel to ``names``."""

    views: tuple[View, ...]
    request: RequestSchema
    names: tuple[str, ...]
    dtypes: tuple[str, ...]  # int64 | float64 | bool
    defaults: tuple[float | None, ...]
    sources: tuple[str, ...]  # source name, or "request" for a function
    freshness_us: tuple[int | None, ...]
    digest: str
    owners: tuple[str, ...] = ()  # who answers for the feature: its view's owner, else the project's
    descriptions: tuple[str, ...] = ()

    @cached_property
    def states(self) -> tuple[StateView, ...]:
        """Online state of these views, one each."""
        return tuple(view.state for view in self.views if not isinstance(view, RequestView))

    @cached_property
    def key_columns(self) -> tuple[str, ...]:
        """Key columns that some view reads by."""
        return tuple(dict.fromkeys(column for state in self.states for column, _ in state.keys))

    def keys_of(self, source: str) -> tuple[str, ...]:
        """Key columns that views need from ``source``."""
        mine = [state for state in self.states if state.source == source]
        return tuple(dict.fromkeys(column for state in mine for column, _ in state.keys))
