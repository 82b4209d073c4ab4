"""Served feature values against their offline recomputation, value by value.

The engine that recomputes is passed in; this module picks the rows and compares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidewheel.features.declaration import FeatureSet
from tidewheel.monitoring.given import SkewFacts
from tidewheel.monitoring.parquet_window import ParquetFolder
from tidewheel.monitoring.served import champion_rows, vectors
from tidewheel.records import REQUEST_PREFIX

MAX_ROWS = 2000
RELATIVE, ABSOLUTE = 1e-6, 1e-9

Recompute = Callable[[pa.Table], pa.Table]  # request rows -> the same rows with one column per feature


def read_skew(
    log: ParquetFolder, features: FeatureSet, digest: str, start_us: int, end_us: int, recompute: Recompute
) -> tuple[SkewFacts, ...]:
    """Facts per feature over up to MAX_ROWS of the champion's rows, spread evenly over the window."""
    request = features.request
    columns = {
        **{key: REQUEST_PREFIX + key for key in request.keys},
        **{name: REQUEST_PREFIX + name for name in request.columns},
    }
    wanted = ("role", "digest", "degraded", "features", "event_id", *columns.values())
    tables = [champion_rows(table, digest) for table in log.tables(wanted, start_us, end_us)]
    served = pa.concat_tables(tables, promote_options="permissive") if tables else None
    if served is None or not served.num_rows:
        return ()
    step = max(1, -(-served.num_rows // MAX_ROWS))
    served = served.take(pa.array(np.arange(0, served.num_rows, step)))
    times = pa.array(log.times_of(served), pa.timestamp("us", tz="UTC"))
    rows = {name: served[logged] for name, logged in columns.items()}
    rows |= {request.event_time: times, request.event_id: served["event_id"]}
    made = recompute(pa.table(rows))
    return compare(features.names, vectors(served, len(features.names)), _matrix(made, features.names))


def compare(
    names: Sequence[str], served: NDArray[np.float64], recomputed: NDArray[np.float64]
) -> tuple[SkewFacts, ...]:
    """Both [n, k]; equal within RELATIVE of the larger plus ABSOLUTE, two missing values are equal."""
    near = np.isclose(served, recomputed, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
    return tuple(SkewFacts(name, len(near), int((~near[:, i]).sum())) for i, name in enumerate(names))


def _matrix(table: pa.Table, names: Sequence[str]) -> NDArray[np.float64]:
    columns = [table[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in names]
    return np.column_stack(columns) if columns else np.empty((table.num_rows, 0))
