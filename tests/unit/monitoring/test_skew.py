"""Served against recomputed values: quiet on a clean replay, loud about every way in which serving goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memory.event_log import MemoryEventLog
from memory.online_store import MemoryOnlineStore
from tidewheel.adapters.duckdb_features import DuckDbFeatures
from tidewheel.clock import DAY_US, HOUR_US, FixedClock, parse_utc
from tidewheel.features.declaration import FeatureSet
from tidewheel.features.events import OFFSET_COLUMN, validate_events
from tidewheel.features.lake import source_paths, write_part
from tidewheel.features.load import parse_features
from tidewheel.features.reader import FeatureReader
from tidewheel.features.rows import request_arrays
from tidewheel.features.stream import StateKeeper
from tidewheel.findings import Finding
from tidewheel.monitoring.checks import findings_of
from tidewheel.monitoring.gather import Champion, gather_skew
from tidewheel.monitoring.given import MonitorInput
from tidewheel.monitoring.paths import MonitorPaths
from tidewheel.serving.prediction_table import prediction_schema
from tidewheel.spec.load import parse_project
from tidewheel.spec.project import ModelProject

PROJECT = """\
name: skewed
owner: tests
entities:
  card: {key: card_id, type: string}
sources:
  payments: {topic: payments, path: payments, event_time: at, event_id: id, columns: {amount: float64, fee: float64}}
  labels: {topic: labels, path: labels, event_time: at, event_id: id, columns: {is_fraud: bool}}
request: payments
label: {source: labels, column: is_fraud, delay: 7d}
training: {window: 28d}
serving:
  decision: {approve: 0.0, decline: 0.9}
"""
FEATURES = """\
import numpy as np
from tidewheel.features import count, mean, request, sum, windowed

own = windowed("payments", by="card", windows={"1d": "1d", "7d": "7d"}, include_request=True,
               features={"n": count(), "amount_mean": mean("amount"), "fees": sum("fee")})
before = windowed("payments", by="card", windows=["12h"], features={"n_before": count()})

@request
def amount_to_usual(amount, amount_mean_7d):
    return amount / np.maximum(amount_mean_7d, 0.01)
"""
START_US = parse_utc("2026-03-01")
N_EVENTS, SERVED_FROM = 400, 260
STEP_US = 45 * 60 * 1_000_000
AS_OF_US = START_US + N_EVENTS * STEP_US


@dataclass(frozen=True)
class Fault:
    """What is wrong on the way to the caller; the default is a healthy platform."""

    features: str = FEATURES
    event_time: Callable[[np.ndarray], np.ndarray] = field(default=lambda t_us: t_us)
    served: Callable[[np.ndarray, FeatureSet], np.ndarray] = field(default=lambda values, features: values)
    steps: Callable[[int], bool] = field(default=lambda event: True)  # whether the worker takes events in then


def payments() -> pa.Table:
    rng = np.random.default_rng(5)
    t_us = START_US + np.arange(N_EVENTS) * STEP_US + rng.integers(0, STEP_US, N_EVENTS)
    return pa.table(
        {
            "card_id": [f"card-{n}" for n in rng.integers(0, 12, N_EVENTS)],
            "at": pa.array(t_us, pa.timestamp("us", tz="UTC")),
            "id": [f"tx-{n}" for n in range(N_EVENTS)],
            "amount": rng.gamma(2.0, 40.0, N_EVENTS).round(2),
            "fee": rng.gamma(2.0, 1.0, N_EVENTS).round(2),
        }
    )


def serve(project: ModelProject, events: pa.Table, fault: Fault) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and positions of the requests from SERVED_FROM on; each event reaches the log after its request."""
    features = parse_features(fault.features, "features.py", project)
    log, store = MemoryEventLog(), MemoryOnlineStore()
    keepers = [
        StateKeeper(view, 0, log, store, FixedClock(1), lambda *_, **__: None)  # type: ignore[arg-type]
        for view in features.views
        if view.kind != "request"
    ]
    reader = FeatureReader(features, store)
    arrays = request_arrays(events, features)
    t_us = events["at"].cast(pa.int64()).to_numpy()
    online = events.set_column(1, "at", pa.array(fault.event_time(t_us), pa.timestamp("us", tz="UTC")))
    vectors, positions = [], []
    for at in range(N_EVENTS):
        if at >= SERVED_FROM:
            read = reader.read({name: values[at : at + 1] for name, values in arrays.items()}, t_us[at : at + 1])
            vectors.append(read.values[0])
            positions.append(read.positions[0])
        log.append("payments", online.slice(at, 1))
        for keeper in keepers:
            while fault.steps(at) and keeper.step():
                pass
    return fault.served(np.array(vectors), features), np.array(positions)


def gathered(root: Path, fault: Fault) -> MonitorInput:
    """What the comparison sees after a fault."""
    project, paths = parse_project(PROJECT, "project.yaml"), paths_in(root)
    events = validate_events(payments(), "payments", project).good
    vectors, positions = serve(project, events, fault)
    lake = source_paths(paths.lake, project)["payments"]
    write_part(lake, 0, events.append_column(OFFSET_COLUMN, pa.array(np.arange(N_EVENTS))), N_EVENTS)
    write_log(paths.predictions(project.name), events.slice(SERVED_FROM), vectors, positions)
    return compared(root)


def paths_in(root: Path) -> MonitorPaths:
    return MonitorPaths(root / "lake", root / "reports", root / "bundles")


def compared(root: Path) -> MonitorInput:
    """What is logged in ``root`` against its recomputation."""
    project = parse_project(PROJECT, "project.yaml")
    champion = Champion("1", "digest", parse_features(FEATURES, "features.py", project), None)  # type: ignore[arg-type]
    longer = project.model_copy(update={"monitoring": project.monitoring.model_copy(update={"every_us": 14 * DAY_US})})

    def recompute(wanted: FeatureSet, rows: pa.Table, where: Mapping[str, Path]) -> pa.Table:
        return DuckDbFeatures(threads=1).compute(wanted, project, rows, where)

    return gather_skew(longer, paths_in(root), champion, AS_OF_US, recompute)


def write_log(folder: Path, rows: pa.Table, vectors: np.ndarray, positions: np.ndarray) -> None:
    n = rows.num_rows
    schema = prediction_schema({})
    values: dict[str, Any] = {name: [None] * n for name in schema.names}
    values |= {
        "record_id": [str(at) for at in range(n)],
        "digest": ["digest"] * n,
        "role": ["champion"] * n,
        "event_time_us": rows["at"].cast(pa.int64()).to_numpy(),
        "event_id": rows["id"].to_pylist(),
        "features": list(vectors),
        "positions": list(positions),
        "degraded": [False] * n,
    }
    columns = {field.name: pa.array(values[field.name], field.type) for field in schema}
    columns |= {f"request.{name}": rows[name].combine_chunks() for name in ("card_id", "amount", "fee")}
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "part-0-0.parquet")


def test_a_clean_replay_reports_nothing(tmp_path):
    given = gathered(tmp_path, Fault())
    assert findings_of(given) == ()
    assert {(one.n_rows, one.n_different, one.n_lagged) for one in given.skew} == {(N_EVENTS - SERVED_FROM, 0, 0)}


def test_a_worker_that_is_a_little_behind_is_lag_and_never_skew(tmp_path):
    given = gathered(tmp_path, Fault(steps=lambda event: event % 40 != 1))
    assert findings_of(given) == ()
    assert {one.n_different for one in given.skew} == {0}
    assert sum(one.n_lagged for one in given.skew) > 0


def _swapped(values: np.ndarray, features: FeatureSet) -> np.ndarray:
    a, b = features.names.index("amount_mean_7d"), features.names.index("fees_7d")
    values[:, [a, b]] = values[:, [b, a]]
    return values


def _without(name: str) -> Callable[[np.ndarray, FeatureSet], np.ndarray]:
    def fill(values: np.ndarray, features: FeatureSet) -> np.ndarray:
        values[::50, features.names.index(name)] = np.nan
        return values

    return fill


@pytest.mark.parametrize(
    ("fault", "reason", "subjects"),
    [
        pytest.param(
            Fault(features=FEATURES.replace('"7d": "7d"', '"7d": "5d"')),
            "TrainServeSkew",
            {"n_7d", "amount_mean_7d", "fees_7d", "amount_to_usual"},
            id="a window of 7 days is served as 5",
        ),
        pytest.param(
            Fault(event_time=lambda t_us: t_us - 2 * HOUR_US),
            "TrainServeSkew",
            {"n_1d", "n_before_12h"},
            id="the stream's times are in another time zone",
        ),
        pytest.param(
            Fault(event_time=lambda t_us: t_us // 1000),
            "TrainServeSkew",
            {"n_1d", "n_7d", "n_before_12h"},
            id="the stream's milliseconds are taken for microseconds",
        ),
        pytest.param(
            Fault(steps=lambda event: event < SERVED_FROM + 30),
            "FeaturesLag",
            {"payments"},
            id="the feed stands still",
        ),
        pytest.param(
            Fault(served=_without("n_before_12h")),
            "TrainServeSkew",
            {"n_before_12h"},
            id="a value is filled instead of read, now and then",
        ),
        pytest.param(
            Fault(served=_swapped),
            "TrainServeSkew",
            {"amount_mean_7d", "fees_7d"},
            id="two columns are swapped",
        ),
    ],
)
def test_every_fault_is_found_and_named(tmp_path, fault, reason, subjects):
    found = findings_of(gathered(tmp_path, fault))
    assert {one.reason for one in found} == {reason}
    assert subjects <= {one.subject for one in found}


def test_only_what_is_at_fault_is_named(tmp_path):
    found: tuple[Finding, ...] = findings_of(gathered(tmp_path, Fault(served=_swapped)))
    assert {one.subject for one in found} == {"amount_mean_7d", "fees_7d"}


def test_facts_say_how_far_off_and_what_only_one_side_has(tmp_path):
    given = gathered(tmp_path, Fault(served=_without("n_before_12h")))
    facts = {one.feature: one for one in given.skew}["n_before_12h"]
    n = len(range(0, N_EVENTS - SERVED_FROM, 50))
    assert (facts.n_different, facts.n_missing, facts.n_extra, facts.delta_max) == (n, n, 0, 0.0)
    shifted = gathered(tmp_path / "other", Fault(served=lambda values, features: values + 2.0))
    facts = {one.feature: one for one in shifted.skew}["n_before_12h"]
    assert facts.n_different == facts.n_rows
    assert (round(facts.delta_p50, 9), round(facts.delta_max, 9)) == (2.0, 2.0)


def test_rows_without_positions_are_compared_and_never_called_late(tmp_path):
    given = gathered(tmp_path, Fault(steps=lambda event: event < SERVED_FROM + 30))
    assert any(one.n_lagged for one in given.skew)
    path = paths_in(tmp_path).predictions("skewed") / "part-0-0.parquet"
    table = pq.read_table(path)
    unknown = pa.array([None] * table.num_rows, pa.list_(pa.int64()))
    pq.write_table(table.set_column(table.column_names.index("positions"), "positions", unknown), path)
    given = compared(tmp_path)
    assert {one.n_lagged for one in given.skew} == {0}
    assert given.skew[0].n_different > 0
