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
from typing import Any, TypeVar

from tidewheel.features.aggregations import COUNT, MAX, MEAN, MIN, STD, SUM, Aggregation

_collector: ContextVar[list[Declaration] | None] = ContextVar("declared", default=None)


@dataclass(frozen=True)
class Aggregate:
    """One aggregation as declared: of ``column``, over the events where all of ``where`` holds."""

    aggregation: Aggregation
    column: str | None
    where: Any
    default: Any
    line: int


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
    by: str,
    windows: Sequence[str] | Mapping[str, str],
    features: Mapping[str, Aggregate],
    include_request: bool = False,
    delay: str | None = None,
    freshness: str | None = None,
    owner: str = "",
    description: str = "",
) -> WindowedDeclaration:
    """Aggregations over the events of ``source`` in the windows (t-W, t], per entity ``by``.

    ``windows`` are durations (``["1h", "7d"]``) or names for them (``{"1DAY_WINDOW": "1d"}``); a feature is called
    ``<name>_<window>``. ``delay`` moves the window to (t-D-W, t-D], ``"label"`` by the label's delay.
    ``include_request`` counts the event being asked about; without it that event never counts, even when it
    reached the platform before the request did. ``freshness`` is how long the source may lag behind.
    """
    return _declared(
        WindowedDeclaration(
            source, by, windows, features, include_request, delay, freshness, owner, description, _line()
        )
    )


def batch(
    source: str,
    *,
    by: str,
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


def _line() -> int:
    """Line of the call in the project's file: two frames up, past this helper and the DSL function."""
    return sys._getframe(2).f_lineno


def _declared(declaration: D) -> D:
    made = _collector.get()
    if made is not None:
        made.append(declaration)
    return declaration
