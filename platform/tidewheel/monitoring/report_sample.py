"""The two samples a drift report shows: what was served in the window, and what the same version served before."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidewheel.clock import DAY_US
from tidewheel.monitoring.gather import Champion
from tidewheel.monitoring.parquet_window import ParquetFolder
from tidewheel.monitoring.paths import MonitorPaths
from tidewheel.monitoring.served import champion_rows, past_profiles, vectors

MAX_ROWS = 10_000
BEFORE_US = 14 * DAY_US
MIN_ROWS = 200
_COLUMNS = ("role", "digest", "degraded", "features", "score")


def write_samples(
    project: str, paths: MonitorPaths, champion: Champion, start_us: int, end_us: int
) -> tuple[Path, Path] | None:
    """(reference, current) as Parquet files of one column per feature and ``score``, in the run's folder.

    The reference is what the version served in the clean windows of the 14 days before; None where either sample is
    too small to show.
    """
    log = ParquetFolder(paths.predictions(project), "event_time_us", paths.index(project, "predictions"))
    past = list(past_profiles(paths.reports / project, champion.digest, start_us))
    recent = [one for one in past if one.start_us >= start_us - BEFORE_US and not one.drifted]
    windows = [(one.start_us, one.end_us) for one in recent or past[:7]]
    reference, current = (_sample(log, champion, spans) for spans in (windows, [(start_us, end_us)]))
    if reference is None or current is None:
        return None
    folder = paths.run(project, end_us)
    written = (folder / "reference.parquet", folder / "current.parquet")
    for path, table in zip(written, (reference, current), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        pq.write_table(table, temporary)
        temporary.replace(path)
    return written


def _sample(log: ParquetFolder, champion: Champion, spans: list[tuple[int, int]]) -> pa.Table | None:
    """At most MAX_ROWS rows, every n-th; None of fewer than MIN_ROWS rows."""
    names = champion.features.names
    parts = []
    for start_us, end_us in spans:
        for table in log.tables(_COLUMNS, start_us, end_us):
            own = champion_rows(table, champion.digest)
            if own.num_rows:
                parts.append((vectors(own, len(names)), own["score"].to_numpy().astype(np.float64)))
    rows = np.concatenate([np.column_stack([x, score]) for x, score in parts]) if parts else np.empty((0, 1))
    if len(rows) < MIN_ROWS:
        return None
    step = max(1, -(-len(rows) // MAX_ROWS))
    chosen = rows[::step]
    return pa.table({name: pa.array(chosen[:, i]) for i, name in enumerate([*names, "score"])})
