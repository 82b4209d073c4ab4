"""Where DuckDB and Spark SQL say the same thing in different words. Everything else is one text for both.

Spark runs with double-quoted identifiers (``spark.sql.ansi.doubleQuotedIdentifiers``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Dialect:
    """One engine's words; the differences are named by what they say."""

    name: str
    row_frames: bool  # RANGE bounds may be an expression of the current row
    asof: bool

    def literal(self, value: Any) -> str:
        """A constant: a bool, a number or text."""
        if isinstance(value, bool):
            return "TRUE" if value else "FALSE"
        if isinstance(value, str):
            text = value.replace("\\", "\\\\") if self.name == "spark" else value
            return "'" + text.replace("'", "''") + "'"
        if isinstance(value, float):
            return f"CAST('{value!r}' AS DOUBLE)"  # Spark would read 0.1 as a decimal
        return repr(value)

    def micros(self, column: str) -> str:
        """A timestamp as int64 us since 1970, UTC."""
        return f"{self._micros}({column})"

    def timestamp(self, time_us: int) -> str:
        """The other way, as a constant that files can be skipped by."""
        return f"{self._timestamp}({time_us})"

    def hashed(self, columns: Sequence[str]) -> str:
        """A 64-bit hash; equal values have equal ones."""
        return f"{self._hash}({', '.join(columns)})"

    def count(self, member: str, over: str) -> str:
        """How many rows meet a condition."""
        if self.row_frames:
            return f"count(*) FILTER (WHERE {member}){over}"  # a quarter faster than counting a CASE
        return f"count(CASE WHEN {member} THEN 1 END){over}"

    def distinct(self, value: str, over: str) -> str:
        """How many different values that are not null."""
        return f"count(DISTINCT {value}){over}" if self.row_frames else f"size(collect_set({value}){over})"

    def integer_sum(self, value: str, over: str) -> str:
        """Exact sum of int64 values, 0 of none and null where int64 cannot hold it."""
        wide = value if self.row_frames else f"CAST({value} AS DECIMAL(20, 0))"
        return f"TRY_CAST(coalesce(sum({wide}){over}, 0) AS BIGINT)"

    def integer_mean(self, value: str, over: str) -> str:
        """Mean of int64 values, of their exact sum; null of none."""
        if self.row_frames:
            return f"avg({value}){over}"
        total = f"CAST(sum(CAST({value} AS DECIMAL(20, 0))){over} AS DOUBLE)"
        return f"{total} / nullif(count({value}){over}, 0)"

    @property
    def _micros(self) -> str:
        return "epoch_us" if self.name == "duckdb" else "unix_micros"

    @property
    def _timestamp(self) -> str:
        return "make_timestamptz" if self.name == "duckdb" else "timestamp_micros"

    @property
    def _hash(self) -> str:
        return "hash" if self.name == "duckdb" else "xxhash64"


DUCKDB = Dialect("duckdb", row_frames=True, asof=True)
SPARK = Dialect("spark", row_frames=False, asof=False)
