"""What became of predictions: mature labels joined to them, the metric, and labels that did not come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidewheel.clock import DAY_US
from tidewheel.evaluation.intervals import measure
from tidewheel.evaluation.label_join import join_labels
from tidewheel.monitoring.given import LabelFacts, PerformanceFacts
from tidewheel.monitoring.parquet_window import ParquetFolder
from tidewheel.monitoring.served import champion_rows
from tidewheel.records import REQUEST_PREFIX
from tidewheel.spec.project import ModelProject

TRAILING_US = 7 * DAY_US  # the metric is measured on the newest mature week
MIN_LABELS = 200
MIN_POSITIVES = 10
MAX_ROWS = 200_000  # of the newest predictions: enough for any metric, bounded memory
SLICE_REPLICATES = 2  # a slice is shown without its interval


def read_performance(
    project: ModelProject, log: ParquetFolder, labels: ParquetFolder, digest: str, as_of_us: int
) -> tuple[int, PerformanceFacts | None]:
    """(predictions with a mature label, the metric on them). None below MIN_LABELS labels or MIN_POSITIVES positives.

    Only the champion's own predictions count: what an earlier version did says nothing about this one.
    """
    spec = project.monitoring.performance
    end_us = as_of_us - project.label.delay_us
    slices = [REQUEST_PREFIX + name for name in (spec.slices if spec else ())]
    names = ("role", "digest", "degraded", "event_id", "unit", "score", *slices)
    tables = [champion_rows(table, digest) for table in log.tables(names, end_us - TRAILING_US, end_us)]
    rows = pa.concat_tables(tables, promote_options="permissive") if tables else None
    if rows is None or not rows.num_rows:
        return 0, None
    times_us = log.times_of(rows)
    if rows.num_rows > MAX_ROWS:
        newest = np.sort(np.argsort(times_us, kind="stable")[-MAX_ROWS:])
        rows, times_us = rows.take(pa.array(newest)), times_us[newest]
    ids, values = _read_labels(project, labels, end_us - TRAILING_US)
    joined = join_labels(rows["event_id"], times_us, ids, values, delay_us=project.label.delay_us, as_of_us=as_of_us)
    n_positive = int(joined.label.sum())
    if spec is None or len(joined.row) < MIN_LABELS or n_positive < MIN_POSITIVES:
        return len(joined.row), None
    at = joined.row
    scores = rows["score"].to_numpy().astype(np.float64)[at]
    units = _codes(rows["unit"])[at]
    days = times_us[at] // DAY_US
    found = measure(spec.metric, scores, joined.label, units, days)
    if found is None:
        return len(at), None
    by_slice: list[tuple[str, float, int]] = []
    for column in slices:
        values_of = rows[column].cast(pa.string()).take(pa.array(at))
        for value in sorted(v for v in pc.unique(values_of).to_pylist() if v is not None)[:20]:
            chosen = np.asarray(pc.fill_null(pc.equal(values_of, value), False))
            one = measure(
                spec.metric,
                scores[chosen],
                joined.label[chosen],
                units[chosen],
                days[chosen],
                replicates=SLICE_REPLICATES,
            )
            if one is not None:
                by_slice.append((f"{column.removeprefix(REQUEST_PREFIX)}={value}", one.value, one.n))
    return len(at), PerformanceFacts(
        spec.metric, found.value, found.low, found.high, found.n, spec.min, tuple(by_slice)
    )


def read_label_facts(
    project: ModelProject, requests: ParquetFolder, labels: ParquetFolder, as_of_us: int
) -> LabelFacts | None:
    """Requests whose label matured one monitor window ago, and how many labels came.

    One window of grace: labels of the newest window may be on their way while the monitor runs.
    """
    every_us = project.monitoring.every_us
    end_us = as_of_us - project.label.delay_us - every_us
    id_column = project.request_source.event_id or ""
    chunks = [table[id_column] for table in requests.tables((id_column,), end_us - every_us, end_us)]
    if not chunks:
        return None
    expected = pc.unique(_flat(chunks).cast(pa.string()))
    ids, values = _read_labels(project, labels, end_us - every_us)
    arrived = pc.is_in(expected, value_set=_flat([ids]).filter(pc.is_valid(_flat([values]))).cast(pa.string()))
    return LabelFacts(project.label.source, len(expected), int(pc.sum(arrived).as_py() or 0))


def count_mature_labels(project: ModelProject, labels: ParquetFolder, since_us: int, as_of_us: int) -> int:
    """Distinct events with a label whose event time is after ``since_us`` and mature at ``as_of_us``."""
    id_column, column = project.label_source.event_id or "", project.label.column
    chunks = [
        table[id_column].filter(pc.is_valid(table[column]))
        for table in labels.tables((id_column, column), since_us, as_of_us - project.label.delay_us)
    ]
    return len(pc.unique(_flat(chunks))) if chunks else 0


def _read_labels(project: ModelProject, labels: ParquetFolder, since_us: int) -> tuple[pa.Array, pa.Array]:
    """Ids and values of labels in order of arrival; a label's event time is never before its event's."""
    id_column, column = project.label_source.event_id or "", project.label.column
    tables = list(labels.tables((id_column, column), since_us, 2**62))
    if not tables:
        return pa.array([], pa.string()), pa.array([], pa.int8())
    return _flat([table[id_column] for table in tables]), _flat([table[column] for table in tables])


def _flat(columns: Sequence[pa.Array | pa.ChunkedArray]) -> pa.Array:
    chunks: list[pa.Array] = []
    for column in columns:
        chunks.extend(column.chunks if isinstance(column, pa.ChunkedArray) else [column])
    return pa.concat_arrays(chunks) if chunks else pa.array([], pa.string())


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Text as whole numbers; sorting text in NumPy would cost seconds."""
    encoded = _flat([column]).dictionary_encode()
    codes: NDArray[np.int64] = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes
