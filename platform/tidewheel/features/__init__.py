"""Features, declared once in a project's ``features.py`` with the words exported here.

The engines that compute them (``sql``, ``kernel`` and ``merge``, ``replay``) and the reader are submodules.
"""

from __future__ import annotations

from tidewheel.features.dsl import batch, count, max, mean, min, request, std, sum, windowed  # noqa: A004

__all__ = ["batch", "count", "max", "mean", "min", "request", "std", "sum", "windowed"]
