"""What can be computed over a window: one object per aggregation, and no engine names any of them.

An aggregation names the parts it is made of (``partials.py``: init, update, merge), ends their fields in a value
(finalize) and says the same as SQL. Engines only call these; parts that several aggregations of one column and
filter share are computed and stored once. Missing is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from tidewheel.features.partials import (
    EVENTS,
    FLOAT_MAX,
    FLOAT_MIN,
    FLOAT_SUM,
    INT_MAX,
    INT_MIN,
    INT_SUM,
    MET,
    SPREAD,
    VALUES,
    Part,
    Partial,
)
from tidewheel.features.spans import Floats, Ints
from tidewheel.features.sql_dialects import Dialect

Reads = Literal["events", "numbers", "values", "condition"]  # values: numbers or text; condition: a second filter


@dataclass(frozen=True)
class SqlEvents:
    """Expressions that an aggregate in SQL may use; ``over`` is empty or an OVER clause with a space before it."""

    dialect: Dialect
    value: str  # the column (DOUBLE, or BIGINT where ``integer``), or 1 and 0 for the condition; null: does not count
    member: str  # a condition: the event counts
    over: str
    integer: bool
    time: str  # of the event, us, BIGINT; null where it does not count
    id_hash: str  # BIGINT, orders equal times
    asked: str  # the time asked about, us, BIGINT


class Aggregation(Protocol):
    """``integer`` says that the column is kept as int64 (int32, int64, bool)."""

    @property
    def name(self) -> str: ...

    @property
    def reads(self) -> Reads: ...

    @property
    def tiled(self) -> bool:
        """Whether precision hop can hold it."""
        ...

    @property
    def with_request(self) -> bool:
        """Whether it makes sense where the event being asked about counts."""
        ...

    @property
    def ordered(self) -> bool:
        """Whether events of equal time are told apart by their id."""
        ...

    def dtype(self, column_type: str | None) -> str:
        """Type of the feature: int64, float64 or bool."""
        ...

    def parts(self, integer: bool) -> tuple[Part, ...]: ...

    def finalize(self, partial: Partial, t_us: Ints) -> Floats:
        """Values of one shape with the fields of all parts; ``t_us`` (int64 us, broadcast) is the time asked about."""
        ...

    def sql(self, events: SqlEvents) -> str:
        """An SQL aggregate with the same value."""
        ...


def same_type(column_type: str | None) -> str:
    return {"bool": "bool", "int32": "int64", "int64": "int64"}.get(column_type or "", "float64")


@dataclass(frozen=True)
class Count:
    """How many events; 0 in an empty window."""

    name: str = "count"
    reads: Reads = "events"
    tiled: bool = True
    with_request: bool = True
    ordered: bool = False

    def dtype(self, column_type: str | None) -> str:
        return "int64"

    def parts(self, integer: bool) -> tuple[Part, ...]:
        return (EVENTS,)

    def finalize(self, partial: Partial, t_us: Ints) -> Floats:
        return partial[0].astype(np.float64)

    def sql(self, events: SqlEvents) -> str:
        return events.dialect.count(events.member, events.over)


@dataclass(frozen=True)
class Sum:
    """The sum of the values that are there; 0 in an empty window, missing where int64 cannot hold it."""

    name: str = "sum"
    reads: Reads = "numbers"
    tiled: bool = True
    with_request: bool = True
    ordered: bool = False

    def dtype(self, column_type: str | None) -> str:
        return "float64" if same_type(column_type) == "float64" else "int64"

    def parts(self, integer: bool) -> tuple[Part, ...]:
        return (INT_SUM,) if integer else (FLOAT_SUM,)

    def finalize(self, partial: Partial, t_us: Ints) -> Floats:
        if len(partial) == 1:
            return np.asarray(partial[0], dtype=np.float64)
        high, low = _carried(partial)
        fits = (high >= -(2**31)) & (high < 2**31)
        return np.where(fits, ((np.where(fits, high, 0) << 32) | low).astype(np.float64), np.nan)

    def sql(self, events: SqlEvents) -> str:
        if events.integer:
            return events.dialect.integer_sum(events.value, events.over)
        return f"coalesce(sum({events.value}){events.over}, 0e0)"


def _carried(halves: Partial) -> tuple[Ints, Ints]:
    """Upper and lower half of an integer sum, the lower one within 32 bits."""
    high, low = halves
    return high + (low >> 32), low & np.int64(2**32 - 1)


@dataclass(frozen=True)
class Mean:
    """The mean of the values that are there; missing in an empty window."""

    name: str = "mean"
    reads: Reads = "numbers"
    tiled: bool = True
    with_request: bool = True
    ordered: bool = False

    def dtype(self, column_type: str | None) -> str:
        return "float64"

    def parts(self, integer: bool) -> tuple[Part, ...]:
        return (INT_SUM, VALUES) if integer else (FLOAT_SUM, VALUES)

    def finalize(self, partial: Partial, t_us: Ints) -> Floats:
        *sums, count = partial
        if len(sums) == 2:
            high, low = _carried((sums[0], sums[1]))
            total = high.astype(np.float64) * 2.0**32 + low
        else:
            total = sums[0]
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def sql(self, events: SqlEvents) -> str:
        if events.integer:
            return events.dialect.integer_mean(events.value, events.over)
        return f"avg({events.value}){events.over}"


@dataclass(frozen=True)
class Extreme:
    """The least or the greatest of the values that are there; missing in an empty window."""

    name: str
    float_part: Part
    int_part: Part
    reads: Reads = "numbers"
    tiled: bool = True
    with_request: bool = True
    ordered: bool = False

    def dtype(self, column_type: str | None) -> str:
        return same_type(column_type)

    def parts(self, integer: bool) -> tuple[Part, ...]:
        # Every int64 is a value, so integers need a count to say that there was none; floats have infinity.
        return (self.int_part, VALUES) if integer else (self.float_part,)

    def finalize(self, partial: Partial, t_us: Ints) -> Floats:
        if len(partial) == 2:
            return np.where(partial[1] > 0, partial[0].astype(np.float64), np.nan)
        return np.where(np.isinf(partial[0]), np.nan, partial[0])

    def sql(self, events: SqlEvents) -> str:
        return f"{self.name}({events.value}){events.over}"


@dataclass(frozen=True)
class Std:
    """Population standard deviation (divides by n); missing in an empty window, 0 for one value."""

    name: str = "std"
    reads: Reads = "numbers"
    tiled: bool = True
    with_request: bool = True
    ordered: bool = False

    def dtype(self, column_type: str | None) -> str:
        return "float64"

    def parts(self, integer: bool) -> tuple[Part, ...]:
        return (SPREAD,)

    def finalize(self, partial: Partial, t_us: Ints) -> Floats:
        count, _, total, squares = partial
        of_mean = np.maximum(squares - total * total / np.maximum(count, 1), 0.0)
        return np.where(count > 0, np.sqrt(of_mean / np.maximum(count, 1)), np.nan)

    def sql(self, events: SqlEvents) -> str:
        return f"stddev_pop({events.value}){events.over}"


@dataclass(frozen=True)
class Ratio:
    """Share of the events that meet a condition; missing in an empty window."""

    name: str = "ratio"
    reads: Reads = "condition"
    tiled: bool = True
    with_request: bool = True
    ordered: bool = False

    def dtype(self, column_type: str | None) -> str:
        return "float64"

    def parts(self, integer: bool) -> tuple[Part, ...]:
        return MET, EVENTS

    def finalize(self, partial: Partial, t_us: Ints) -> Floats:
        met, count = partial
        return np.where(count > 0, met / np.maximum(count, 1), np.nan)

    def sql(self, events: SqlEvents) -> str:
        return f"avg({events.value}){events.over}"


COUNT = Count()
SUM = Sum()
MEAN = Mean()
MIN = Extreme("min", FLOAT_MIN, INT_MIN)
MAX = Extreme("max", FLOAT_MAX, INT_MAX)
STD = Std()
RATIO = Ratio()
