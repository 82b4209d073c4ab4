"""Features, declared once in a project's ``features.py`` with the words exported here.

The engines that compute them (``sql``, ``kernel`` and ``merge``, ``replay``) and the reader are submodules.
"""

from __future__ import annotations

from tidewheel.features.dsl import (
    batch,
    count,
    distinct,
    first,
    last,
    max,  # noqa: A004
    mean,
    min,  # noqa: A004
    ratio,
    request,
    std,
    sum,  # noqa: A004
    time_since_last,
    windowed,
)

__all__ = [
    "batch",
    "count",
    "distinct",
    "first",
    "last",
    "max",
    "mean",
    "min",
    "ratio",
    "request",
    "std",
    "sum",
    "time_since_last",
    "windowed",
]
