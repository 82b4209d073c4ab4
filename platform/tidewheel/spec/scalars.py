"""Scalar types of the spec: durations with units, names, ratios.

A duration is written as text with a unit (``50ms``, ``10m``, ``7d``) and held as int microseconds.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from tidewheel.clock import DAY_US, HOUR_US, MINUTE_US, SECOND_US

_UNITS_US = {"ms": 1_000, "s": SECOND_US, "m": MINUTE_US, "h": HOUR_US, "d": DAY_US}
_DURATION = re.compile(r"([1-9][0-9]*)(ms|s|m|h|d)")
_MAX_US = 3_660 * DAY_US


def duration_us(value: Any) -> int:
    """Text with a unit to microseconds; raises ValueError that says what is allowed.

    >>> duration_us("7d")
    604800000000
    >>> duration_us("50ms")
    50000
    """
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        total = int(match[1]) * _UNITS_US[match[2]]
        if total <= _MAX_US:
            return total
        raise ValueError("must be at most 3660d")
    raise ValueError("must be a number with a unit: ms, s, m, h or d, such as 50ms, 10m or 7d")


def duration_text(value_us: int) -> str:
    """Microseconds to the shortest text ``duration_us`` reads back.

    >>> duration_text(604800000000), duration_text(90_000_000)
    ('7d', '90s')
    """
    for unit in ("d", "h", "m", "s", "ms"):
        size = _UNITS_US[unit]
        if value_us >= size and value_us % size == 0:
            return f"{value_us // size}{unit}"
    return f"{max(1, round(value_us / 1_000))}ms"


DurationUs = Annotated[
    int,
    BeforeValidator(duration_us),
    WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]*(ms|s|m|h|d)$", "examples": ["50ms", "10m", "7d"]}),
]
Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
CpuQuantity = Annotated[str, Field(pattern=r"^([1-9][0-9]{0,5}m|[1-9][0-9]{0,2})$")]
MemoryQuantity = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}(Mi|Gi)$")]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
ProjectName = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$")]


class Section(BaseModel):
    """Base of all spec sections: frozen, unknown fields refused, read by the names people write."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_alias=True, validate_by_name=False)
