"""What people write in ``features.py``: windowed and batch views, request functions, aggregations.

Nothing is checked here beyond Python's own call signatures: a declaration keeps what was written and the line it
was written on, and ``resolve.py`` reports every mistake of the file at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from tidewheel.features.aggregations import COUNT, MAX, MEAN, MIN, RATIO, STD, SUM, Aggregation
from tidewheel.features.order_aggregations import DISTINCT, FIRST, LAST, TIME_SINCE_LAST

_collector: ContextVar[list[Declaration] | None] = ContextVar("declared", default=None)


@dataclass(frozen=True)
class Aggregate:
    """One aggregation as declared: of ``column`` or of ``condition``, over the events where all of ``where`` holds."""

    aggregation: Aggregation
    column: str | None
    where: Any
    default: Any
    line: int
    condition: Any = None


@dataclass(frozen=True, eq=False)
class WindowedDeclaration:
    """A ``windowed`` call as written."""

    source: Any
    by: Any
    windows: Any
    features: Any
    include_request: Any
    delay: Any
    freshness: Any
    precision: Any
    hop: Any
    max_events: Any
    dedup_for: Any
    owner: Any
    description: Any
    line: int


@dataclass(frozen=True, eq=False)
class BatchDeclaration:
    """A ``batch`` call as written."""

    source: Any
    by: Any
    columns: Any
    ttl: Any
    freshness: Any
    owner: Any
    description: Any
    line: int


@dataclass(frozen=True, eq=False)
class RequestDeclaration:
    """A function under ``@request``; still callable with arrays."""

    function: Callable[..., Any]
    line: int
    name: str = field(default="")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


Declaration = WindowedDeclaration | BatchDeclaration | RequestDeclaration
D = TypeVar("D", WindowedDeclaration, BatchDeclaration, RequestDeclaration)


@contextmanager
def collect() -> Iterator[list[Declaration]]:
    """Gather every declaration made inside, bound to a variable or not."""
    made: list[Declaration] = []
    token = _collector.set(made)
    try:
        yield made
    finally:
        _collector.reset(token)


def windowed(
    source: str,
    *,
    by: str | Sequence[str],
    windows: Sequence[str] | Mapping[str, str],
    features: Mapping[str, Aggregate],
    include_request: bool = False,
    delay: str | None = None,
    freshness: str | None = None,
    precision: Literal["exact", "hop"] = "exact",
    hop: str | None = None,
    max_events: int | None = None,
    dedup_for: str | None = None,
    owner: str = "",
    description: str = "",
) -> WindowedDeclaration:
    """Aggregations over the events of ``source`` in the windows (t-W, t], per entity ``by`` (several: their pairs).

    ``windows`` are durations (``["1h", "7d"]``) or names for them (``{"1DAY_WINDOW": "1d"}``); a feature is called
    ``<name>_<window>``. ``delay`` moves the window to (t-D-W, t-D], ``"label"`` by the label's delay.
    ``include_request`` counts the event being asked about; without it that event never counts, even when it
    reached the platform before the request did. ``freshness`` is how long the source may lag behind.

    ``precision="exact"`` keeps the events themselves, of which a window may hold ``max_events`` (10,000); with more
    of them its value is missing. ``"hop"`` keeps partial results per ``hop`` of time (by window length: 5m, 1h, 1d),
    and a window begins at the edge of one: it covers up to one hop more. ``dedup_for`` is how long an event id is
    remembered: as long as its event is kept (exact), the source's allowed lateness (hop).
    """
    return _declared(
        WindowedDeclaration(
            source, by, windows, features, include_request, delay, freshness, precision, hop, max_events, dedup_for,
            owner, description, _line(),
        )
    )  # fmt: skip


def batch(
    source: str,
    *,
    by: str | Sequence[str],
    columns: Sequence[str],
    ttl: str,
    freshness: str | None = None,
    owner: str = "",
    description: str = "",
) -> BatchDeclaration:
    """Columns of the newest row at or before t that is no older than ``ttl``, per entity ``by``."""
    return _declared(BatchDeclaration(source, by, columns, ttl, freshness, owner, description, _line()))


def request(function: Callable[..., Any]) -> RequestDeclaration:
    """A pure vectorised function of request fields and features declared above it, by argument name.

    It is given NumPy arrays of one length and returns one of that length (numbers or bool; NaN is missing).
    The event time is a ``datetime64[us]`` array in UTC.
    """
    code = getattr(function, "__code__", None)
    line = code.co_firstlineno if code is not None else _line()
    return _declared(RequestDeclaration(function, line, getattr(function, "__name__", "")))


def count(where: Mapping[str, Any] | None = None, *, default: float | None = None) -> Aggregate:
    """How many events; 0 in an empty window."""
    return Aggregate(COUNT, None, where, default, _line())


def sum(column: str, where: Mapping[str, Any] | None = None, *, default: float | None = None) -> Aggregate:  # noqa: A001
    """Sum of the column; 0 in an empty window."""
    return Aggregate(SUM, column, where, default, _line())


def mean(column: str, where: Mapping[str, Any] | None = None, *, default: float | None = None) -> Aggregate:
    """Mean of the column; ``default`` (or missing) in an empty window."""
    return Aggregate(MEAN, column, where, default, _line())


def min(column: str, where: Mapping[str, Any] | None = None, *, default: float | None = None) -> Aggregate:  # noqa: A001
    """Least value of the column; ``default`` (or missing) in an empty window."""
    return Aggregate(MIN, column, where, default, _line())


def max(column: str, where: Mapping[str, Any] | None = None, *, default: float | None = None) -> Aggregate:  # noqa: A001
    """Greatest value of the column; ``default`` (or missing) in an empty window."""
    return Aggregate(MAX, column, where, default, _line())


def std(column: str, where: Mapping[str, Any] | None = None, *, default: float | None = None) -> Aggregate:
    """Population standard deviation of the column; ``default`` (or missing) in an empty window."""
    return Aggregate(STD, column, where, default, _line())


def first(column: str, where: Mapping[str, Any] | None = None, *, default: float | None = None) -> Aggregate:
    """The column's value in the oldest event that has one; ``default`` (or missing) in an empty window."""
    return Aggregate(FIRST, column, where, default, _line())


def last(column: str, where: Mapping[str, Any] | None = None, *, default: float | None = None) -> Aggregate:
    """The column's value in the newest event that has one; ``default`` (or missing) in an empty window."""
    return Aggregate(LAST, column, where, default, _line())


def distinct(column: str, where: Mapping[str, Any] | None = None, *, default: float | None = None) -> Aggregate:
    """How many different values, of numbers or text; 0 in an empty window. Precision exact only."""
    return Aggregate(DISTINCT, column, where, default, _line())


def ratio(
    where: Mapping[str, Any], *, among: Mapping[str, Any] | None = None, default: float | None = None
) -> Aggregate:
    """Share of the events (of those where ``among`` holds) where ``where`` holds; ``default`` when there are none."""
    return Aggregate(RATIO, None, among, default, _line(), condition=where)


def time_since_last(where: Mapping[str, Any] | None = None, *, default: float | None = None) -> Aggregate:
    """Seconds since the newest event in the window; ``default`` (or missing) when there is none."""
    return Aggregate(TIME_SINCE_LAST, None, where, default, _line())


def _line() -> int:
    """Line of the call in the project's file: two frames up, past this helper and the DSL function."""
    return sys._getframe(2).f_lineno


def _declared(declaration: D) -> D:
    made = _collector.get()
    if made is not None:
        made.append(declaration)
    return declaration
