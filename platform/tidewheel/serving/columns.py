"""The columns a caller may send: checked value by value, then turned into the arrays that feature readers take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tidewheel.clock import parse_utc
from tidewheel.serving.request import BadRequest

Role = Literal["key", "event_time", "event_id", "column"]

_INT_BOUNDS = {"int64": 2**63, "int32": 2**31}
_INT_DATATYPES = ("INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8")
FLOAT_DATATYPES = ("FP64", "FP32", "FP16", "BF16", *_INT_DATATYPES)
_OIP_KINDS = {
    "int64": _INT_DATATYPES,
    "int32": _INT_DATATYPES,
    "float64": FLOAT_DATATYPES,
    "float32": FLOAT_DATATYPES,
    "bool": ("BOOL",),
    "string": ("BYTES",),
    "time": ("INT64", "UINT64", "BYTES"),
    "id": ("INT64", "INT32", "UINT64", "UINT32", "BYTES"),
}
# Earlier than 1973 is a time in seconds or milliseconds, later than 2243 one in nanoseconds.
_MIN_TIME_US, _MAX_TIME_US = 10**14, 2**53
_MAX_TEXT = 10_000


@dataclass(frozen=True)
class Column:
    """One column. ``type`` is a spec column type, or ``time`` or ``id``."""

    name: str
    type: str
    role: Role

    @property
    def datatypes(self) -> tuple[str, ...]:
        """OIP datatypes that may carry it."""
        return _OIP_KINDS[self.type]

    @cached_property
    def accepted(self) -> frozenset[str]:
        """``datatypes``, to look up."""
        return frozenset(self.datatypes)

    @cached_property
    def check(self) -> Callable[[Any], Any]:
        """One value as a Python value of the column's type. Raises ValueError, OverflowError."""
        return _CHECKS[self.type]

    @property
    def required(self) -> bool:
        return self.role == "key"

    def checked(self, values: list[Any]) -> list[Any]:
        """The values as Python values of the column's type; None stays None. Raises BadRequest."""
        check = self.check
        try:
            done = [None if value is None else check(value) for value in values]
        except (ValueError, OverflowError) as error:
            raise BadRequest(f"{self.name}: {error}") from None
        if self.role == "key" and None in done:
            raise BadRequest(f"{self.name}: must not be null: it is a key")
        return done


def _int(bound: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if type(value) is int and -bound <= value < bound:
            return value
        raise ValueError(f"must be a whole number of {bound.bit_length()} bits (got {_shown(value)})")

    return check


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int:
        return float(value) if abs(value) < 2**1023 else float("nan")
    raise ValueError(f"must be a number (got {_shown(value)})")


def _bool(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise ValueError(f"must be true or false (got {_shown(value)})")


def _text(value: Any) -> str:
    if type(value) is str and len(value) <= _MAX_TEXT:
        return value
    raise ValueError(f"must be text of at most {_MAX_TEXT} characters (got {_shown(value)})")


def _id(value: Any) -> str:
    if type(value) is str and 0 < len(value) <= 512:
        return value
    if type(value) is int:
        return str(value)
    raise ValueError(f"must be text or a whole number that names the event (got {_shown(value)})")


def _time(value: Any) -> int:
    if type(value) is str:
        at_us = parse_utc(value)
    elif type(value) is int:
        at_us = value
    else:
        raise ValueError(f"must be microseconds UTC or an ISO 8601 time (got {_shown(value)})")
    if _MIN_TIME_US <= at_us < _MAX_TIME_US:
        return at_us
    raise ValueError(f"must be whole microseconds UTC between 1973 and 2255 (got {_shown(value)})")


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "int64": _int(_INT_BOUNDS["int64"]),
    "int32": _int(_INT_BOUNDS["int32"]),
    "float64": _float,
    "float32": _float,
    "bool": _bool,
    "string": _text,
    "time": _time,
    "id": _id,
}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


@dataclass(frozen=True)
class RequestColumns:
    """All columns of a project's request, by its source's own names; ``keys`` and ``columns`` map name to type.

    Keys that no feature reads by and that do not choose the variant may stay out of a request.
    """

    keys: Mapping[str, str]
    event_time: str
    event_id: str
    columns: Mapping[str, str]
    required: tuple[str, ...]

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """Every name a caller may use; ``event_time`` and ``event_id`` name themselves unless a column does."""
        time = Column(self.event_time, "time", "event_time")
        event = Column(self.event_id, "id", "event_id")
        found = {"event_time": time, "event_id": event}
        for name, kind in (*self.columns.items(), *((k, v) for k, v in self.keys.items() if k not in self.required)):
            found[name] = Column(name, kind, "column")
        found |= {name: Column(name, self.keys[name], "key") for name in self.required}
        return found | {self.event_time: time, self.event_id: event}

    @property
    def logged(self) -> dict[str, str]:
        """Columns of the prediction log besides time and event id, name to type."""
        return {**self.keys, **self.columns}

    @cached_property
    def kinds(self) -> dict[str, str]:
        """``logged``, made once."""
        return self.logged


class ColumnArrays(Mapping[str, NDArray[Any]]):
    """Rows of several requests as one array per column; a column that a request lacks is missing there.

    An array is made when it is first asked for: many columns are there for the log alone.
    """

    def __init__(
        self,
        kinds: Mapping[str, str],
        parts: Sequence[Mapping[str, list[Any]]],
        counts: Sequence[int],
        more: dict[str, NDArray[Any]],
    ) -> None:
        self._kinds, self._parts, self._counts, self._made = kinds, parts, counts, more
        self._names = kinds.keys() | more.keys()

    def __getitem__(self, name: str) -> NDArray[Any]:
        made = self._made.get(name)
        if made is None:
            kind = self._kinds[name]
            values: list[Any] = []
            for part, n in zip(self._parts, self._counts, strict=True):
                values += part.get(name) or [None] * n
            made = self._made[name] = _array(values, kind)
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


def _array(values: list[Any], kind: str) -> NDArray[Any]:
    """NaN or None where missing; whole numbers and flags stay such as long as none is missing."""
    if kind == "string":
        made = np.empty(len(values), dtype=object)
        made[:] = values
        return made
    if kind in ("int64", "int32", "bool") and None not in values:
        return np.array(values, dtype=np.bool_ if kind == "bool" else np.int64)
    made = np.array(values, dtype=np.float64)  # None becomes NaN
    return made.astype(np.float32).astype(np.float64) if kind == "float32" else made


@dataclass(frozen=True, eq=False)
class Accepted:
    """What callers may send: the request's columns, or the ``features`` of ``version`` in its order."""

    columns: RequestColumns
    version: str = ""
    features: tuple[str, ...] = ()

    @cached_property
    def only_features(self) -> frozenset[str]:
        """Features whose name is no request column's."""
        return frozenset(self.features) - self.columns.by_name.keys()
