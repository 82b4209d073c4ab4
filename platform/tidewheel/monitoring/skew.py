"""Served feature values against their offline recomputation, value by value, over what was known.

A served row says how far each of its states had come in the log. What differs is recomputed from just the events
before that position: equal then, it was the source's lag; different still, training and serving disagree. The engine
that recomputes is passed in; this module picks the rows and compares.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidewheel.features.declaration import BatchView, FeatureSet, RequestView, WindowedView
from tidewheel.features.rows import request_arrays, run_request_views
from tidewheel.monitoring.given import SkewFacts
from tidewheel.monitoring.known_events import write_known
from tidewheel.monitoring.parquet_window import ParquetFolder
from tidewheel.monitoring.served import champion_rows, vectors
from tidewheel.records import REQUEST_PREFIX

MAX_ROWS = 2000
MAX_LATE_ROWS = 500  # rows whose known events are looked up, per view
RELATIVE, ABSOLUTE = 1e-6, 1e-9

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Recompute(Protocol):
    """An offline engine: ``rows`` and one column per feature, as of each row's event time."""

    def __call__(self, features: FeatureSet, rows: pa.Table, sources: Mapping[str, Path]) -> pa.Table: ...


@dataclass(frozen=True)
class ServedRows:
    """Logged requests as an engine takes them, with what they were served. ``positions`` [n, states], -1: unknown."""

    rows: pa.Table
    t_us: Ints
    served: Floats  # [n, k]
    positions: Ints


def read_skew(
    log: ParquetFolder,
    features: FeatureSet,
    digest: str,
    start_us: int,
    end_us: int,
    lakes: Mapping[str, ParquetFolder],
    recompute: Recompute,
) -> tuple[SkewFacts, ...]:
    """Facts per feature over up to MAX_ROWS of the champion's rows, spread evenly over the window."""
    served = _served_rows(log, features, digest, start_us, end_us)
    if served is None:
        return ()
    sources = {name: lake.folder for name, lake in lakes.items()}
    offline = _matrix(recompute(features, served.rows, sources), features.names)
    differs = ~_near(served.served, offline)
    known = _as_known(served, features, offline, differs, lakes, recompute)
    return compare(features.names, features.sources, served.served, offline, known)


def compare(
    names: Sequence[str], sources: Sequence[str], served: Floats, offline: Floats, known: Floats
) -> tuple[SkewFacts, ...]:
    """All [n, k]; ``offline`` knows every event, ``known`` only those that the served row's state included."""
    lagged = ~_near(served, offline) & _near(served, known)
    differs = ~_near(served, offline) & ~lagged
    facts = []
    for at, name in enumerate(names):
        bad = differs[:, at]
        deltas = np.abs(served[bad, at] - offline[bad, at])
        deltas = deltas[np.isfinite(deltas)]
        half, most, largest = np.quantile(deltas, (0.5, 0.95, 1.0)).tolist() if len(deltas) else [0.0] * 3
        facts.append(
            SkewFacts(
                feature=name,
                n_rows=len(served),
                n_different=int(bad.sum()),
                n_lagged=int(lagged[:, at].sum()),
                n_missing=int((bad & np.isnan(served[:, at])).sum()),
                n_extra=int((bad & np.isnan(offline[:, at])).sum()),
                delta_p50=half,
                delta_p95=most,
                delta_max=largest,
                source=sources[at],
            )
        )
    return tuple(facts)


def _served_rows(
    log: ParquetFolder, features: FeatureSet, digest: str, start_us: int, end_us: int
) -> ServedRows | None:
    request = features.request
    columns = {name: REQUEST_PREFIX + name for name in (*request.keys, *request.columns)}
    wanted = ("role", "digest", "degraded", "features", "positions", "event_id", *columns.values())
    tables = [champion_rows(table, digest) for table in log.tables(wanted, start_us, end_us)]
    table = pa.concat_tables(tables, promote_options="permissive") if tables else None
    if table is None or not table.num_rows:
        return None
    step = max(1, -(-table.num_rows // MAX_ROWS))
    table = table.take(pa.array(np.arange(0, table.num_rows, step)))
    t_us = log.times_of(table)
    rows = {name: table[logged] for name, logged in columns.items()}
    rows |= {request.event_time: pa.array(t_us, pa.timestamp("us", tz="UTC")), request.event_id: table["event_id"]}
    served = vectors(table, len(features.names))
    return ServedRows(pa.table(rows), t_us, served, _positions(table, len(features.states)))


def _positions(table: pa.Table, n_states: int) -> Ints:
    lists = table["positions"].to_pylist()
    unknown = [-1] * n_states
    return np.array([one if one is not None and len(one) == n_states else unknown for one in lists], dtype=np.int64)


def _as_known(
    served: ServedRows,
    features: FeatureSet,
    offline: Floats,
    differs: NDArray[np.bool_],
    lakes: Mapping[str, ParquetFolder],
    recompute: Recompute,
) -> Floats:
    """``offline`` again, where it differs from what was served, over the events that the state included."""
    known = offline.copy()
    views = [view for view in features.views if not isinstance(view, RequestView)]
    places = {name: at for at, name in enumerate(features.names)}
    changed = False
    for number, view in enumerate(views):
        mine = np.array([places[name] for name in view.feature_names])
        asked = np.flatnonzero(differs[:, mine].any(axis=1) & (served.positions[:, number] >= 0))[:MAX_LATE_ROWS]
        if not len(asked):
            continue
        known[np.ix_(asked, mine)] = _view_as_known(served, features, view, number, asked, lakes, recompute)
        changed = True
    if changed:
        found = {name: known[:, at] for name, at in places.items()}
        run_request_views(features, found, request_arrays(served.rows, features))
        known = np.column_stack([found[name] for name in features.names])
    return known


def _view_as_known(
    served: ServedRows,
    features: FeatureSet,
    view: WindowedView | BatchView,
    number: int,
    asked: Ints,
    lakes: Mapping[str, ParquetFolder],
    recompute: Recompute,
) -> Floats:
    rows, t_us = served.rows.take(pa.array(asked)), served.t_us[asked]
    with tempfile.TemporaryDirectory(prefix="tidewheel-skew-") as folder:
        into = Path(folder) / view.source
        rows = write_known(view, rows, t_us, served.positions[asked, number], lakes[view.source], into)
        made = recompute(only(features, view), rows, {view.source: into})
    return _matrix(made, view.feature_names)


def only(features: FeatureSet, view: WindowedView | BatchView) -> FeatureSet:
    """The feature set of one view alone."""
    at = [features.names.index(name) for name in view.feature_names]

    def of(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(values[index] for index in at)

    return replace(
        features,
        views=(view,),
        names=of(features.names),
        dtypes=of(features.dtypes),
        defaults=of(features.defaults),
        sources=of(features.sources),
        freshness_us=of(features.freshness_us),
    )


def _near(left: Floats, right: Floats) -> NDArray[np.bool_]:
    """Equal within RELATIVE of the larger plus ABSOLUTE; two missing values are equal."""
    return np.isclose(left, right, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)


def _matrix(table: pa.Table, names: Sequence[str]) -> Floats:
    columns = [table[name].cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) for name in names]
    return np.column_stack(columns) if columns else np.empty((table.num_rows, 0))
