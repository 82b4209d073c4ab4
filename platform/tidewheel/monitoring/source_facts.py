"""What a source delivered in a window, against the windows before it, from the lake.

One pass over at most eight windows; counts are exact, the share of the most frequent value comes from the first
``SAMPLE_ROWS`` rows of a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidewheel.monitoring.given import ColumnFacts, SourceFacts
from tidewheel.monitoring.parquet_window import ParquetFolder

USUAL_WINDOWS = 7
MIN_USUAL_WINDOWS = 3
SAMPLE_ROWS = 20_000


def read_source(
    name: str, folder: ParquetFolder, columns: Sequence[str], end_us: int, every_us: int, event_id: str | None = None
) -> SourceFacts | None:
    """The window (end - every, end] against the seven before that history covers; None without any history.

    Events are counted once by ``event_id``: a file that was sent twice must not make the next day look poor.

    The usual number of events is their median or that of the same weekday a week before, whichever is lower: a
    quiet Sunday is no broken feed. Missing shares are medians, so that a broken day does not become usual.
    """
    first_us = folder.first_us
    if first_us is None:
        return None
    n_windows = USUAL_WINDOWS + 1
    zero_us = end_us - n_windows * every_us
    rows = np.zeros(n_windows, dtype=np.int64)
    ids: list[list[pa.Array]] = [[] for _ in range(n_windows)]
    missing = {column: np.zeros(n_windows, dtype=np.int64) for column in columns}
    samples: dict[tuple[str, bool], list[pa.Array]] = {}
    taken = {True: 0, False: 0}
    for table in folder.tables((*columns, *((event_id,) if event_id else ())), zero_us, end_us):
        window = (folder.times_of(table) - zero_us - 1) // every_us
        rows += np.bincount(window, minlength=n_windows)
        for seen in np.unique(window) if event_id else ():
            ids[seen].extend(table[event_id].filter(pa.array(window == seen)).chunks)
        for column in columns:
            nulls = np.asarray(pc.is_null(table[column], nan_is_null=_is_floating(table[column])))
            missing[column] += np.bincount(window[nulls], minlength=n_windows)
        for now in (True, False):
            part = table.filter(pa.array((window == n_windows - 1) == now)).slice(0, SAMPLE_ROWS - taken[now])
            taken[now] += part.num_rows
            for column in columns:
                samples.setdefault((column, now), []).extend(part[column].chunks)
    usual = [i for i in range(n_windows - 1) if zero_us + i * every_us >= first_us - 1 and rows[i] > 0]
    facts = tuple(_column(column, rows, missing[column], usual, samples) for column in columns) if usual else ()
    events = (
        np.array([len(pc.unique(pa.chunked_array(chunks))) if chunks else 0 for chunks in ids]) if event_id else rows
    )
    return SourceFacts(name, int(events[-1]), _usual_events(events, usual, n_windows), facts)


def _usual_events(rows: np.ndarray, usual: Sequence[int], n_windows: int) -> float | None:
    if len(usual) < MIN_USUAL_WINDOWS:
        return None
    median = float(np.median(rows[list(usual)]))
    return min(median, float(rows[0])) if n_windows - 1 == USUAL_WINDOWS and 0 in usual else median


def _column(
    name: str,
    rows: np.ndarray,
    missing: np.ndarray,
    usual: Sequence[int],
    samples: dict[tuple[str, bool], list[pa.Array]],
) -> ColumnFacts:
    ratios = [missing[i] / rows[i] for i in usual]
    top_value, top_ratio = _top(samples.get((name, True), []))
    _, usual_top = _top(samples.get((name, False), []))
    return ColumnFacts(
        name,
        int(rows[-1]),
        float(missing[-1] / rows[-1]) if rows[-1] else 0.0,
        float(np.median(ratios)),
        top_ratio,
        usual_top,
        _share(samples.get((name, False), []), top_value),
    )


def _known(chunks: Sequence[pa.Array]) -> pa.Array:
    values = pa.concat_arrays([chunk for chunk in chunks if not pa.types.is_null(chunk.type)] or [pa.nulls(0)])
    return values.drop_null() if not _is_floating(values) else values.filter(pc.fill_null(pc.is_finite(values), False))


def _top(chunks: Sequence[pa.Array]) -> tuple[pa.Scalar | None, float]:
    """The most frequent known value and its share; (None, 0) without any."""
    values = _known(chunks)
    if not len(values):
        return None, 0.0
    counted = values.value_counts()
    counts = counted.field("counts").to_numpy(zero_copy_only=False)
    best = int(counts.argmax())
    return counted.field("values")[best], float(counts[best] / len(values))


def _share(chunks: Sequence[pa.Array], value: pa.Scalar | None) -> float:
    values = _known(chunks)
    if value is None or not len(values) or values.type != value.type:
        return 0.0
    return float(pc.sum(pc.equal(values, value)).as_py() or 0) / len(values)


def _is_floating(values: pa.Array | pa.ChunkedArray) -> bool:
    return bool(pa.types.is_floating(values.type))
