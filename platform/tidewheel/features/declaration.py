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

# Requests may be this much older than the newest event of their entity and still read whole windows: a day's
# events are ingested in bulk before that day's requests are replayed, a batch of rows is scored a day late.
READ_SLACK_US = 2 * DAY_US

Filter = tuple[tuple[str, Any], ...]  # column and the value it must equal, all of them, sorted by column
ViewKind = Literal["windowed", "batch", "request"]


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

    @property
    def feast_view(self) -> str:
        """Name of the Feast FeatureView that holds this state."""
        return f"{self.view}_{self.state_id[:8]}"

    @property
    def record_bytes(self) -> int:
        """Bytes per event: time, event id hash, filter bits and one 64-bit field per column."""
        return 8 * (3 + len(self.columns))

    def column_index(self, column: str) -> int:
        return [name for name, _ in self.columns].index(column)


@dataclass(frozen=True)
class WindowedFeature:
    """One aggregation over one window of its view."""

    name: str
    aggregation: Aggregation
    column: str | None
    filter_index: int | None  # bit of the view's state, None: every event
    window_index: int
    default: float | None


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

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @cached_property
    def edges_us(self) -> NDArray[np.int64]:
        """How far before a request all windows end, and where each begins: int64 [1 + windows]."""
        return self.delay_us + np.array([0, *self.windows_us], dtype=np.int64)

    @cached_property
    def groups(self) -> tuple[tuple[Aggregation, str | None, int | None, tuple[tuple[int, int], ...]], ...]:
        """Features that share one aggregation over all windows: (aggregation, column, filter, ((feature, window)))."""
        groups: dict[tuple[Aggregation, str | None, int | None], list[tuple[int, int]]] = {}
        for index, feature in enumerate(self.features):
            same = (feature.aggregation, feature.column, feature.filter_index)
            groups.setdefault(same, []).append((index, feature.window_index))
        return tuple((*same, tuple(indexes)) for same, indexes in groups.items())

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
