"""A training set of ten plain features (a table's newest row as of each request): ASOF against Feast's DuckDB store.

Each run is a process of its own, and its peak memory has interpreter and libraries in it. Feast's store needs Ibis
(``feast[duckdb]``); where this environment lacks it, ``TIDEWHEEL_FEAST_PYTHON`` names an interpreter that has both.

``python -m benchmarks.plain_features ours|feast FOLDER OUT.npy`` is one run.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.children import alternating_children, child, measured
from benchmarks.lines import Line

SIZES = {"full": (3_000_000, 500_000, 20_000, 3), "tiny": (5_000, 1_000, 50, 1)}  # table, rows, users, rounds
NAMES = tuple(f"f{number}" for number in range(10))
TTL_DAYS, DAYS = 7, 60
THREADS = 2
SPEC = f"""
name: plain
owner: bench
entities:
  user: {{key: user_id, type: int64}}
sources:
  stats: {{path: stats, event_time: event_timestamp, columns: {{{", ".join(f"{name}: float64" for name in NAMES)}}}}}
  requests: {{topic: requests, path: requests, event_time: event_timestamp, event_id: id, columns: {{x: float64}}}}
  labels: {{topic: labels, path: labels, event_time: at, event_id: id, columns: {{y: bool}}}}
request: requests
label: {{source: labels, column: y, delay: 7d}}
training: {{window: 7d}}
serving: {{decision: {{approve: 0.0}}}}
"""


def run(size: str) -> list[Line]:
    """Lines for time and memory; raises AssertionError where the values differ."""
    from benchmarks.world import scratch

    n_table, n_rows, n_users, rounds = SIZES[size]
    folder = scratch() / f"plain-{size}"
    make(folder, n_table, n_rows, n_users)
    python = feast_python()
    names = ("ours", "feast") if python else ("ours",)
    works: dict[str, Callable[[], Any]] = {
        name: lambda name=name: child(  # type: ignore[misc]
            "benchmarks.plain_features", name, folder, folder / f"{name}.npy",
            python=python if name == "feast" else sys.executable,
        )
        for name in names
    }  # fmt: skip
    found = alternating_children(rounds, works)
    what = f"training set, {n_table:,} table rows x {n_rows:,} rows x {len(NAMES)} plain features"
    if not python:
        mine = found["ours"]
        note = "Feast's store not run: needs feast[duckdb]"
        return [Line(f"{what}: wall", "nothing", mine.wall_s, mine.wall_s, "s", rounds, note=note)]
    np.testing.assert_array_equal(np.load(folder / "ours.npy"), np.load(folder / "feast.npy"))
    mine, theirs = found["ours"], found["feast"]
    against = "Feast, DuckDB offline store"
    megabytes = mine.peak_bytes / 2**20, theirs.peak_bytes / 2**20
    return [
        Line(f"{what}: wall", against, mine.wall_s, theirs.wall_s, "s", rounds, reach=4.0, note="equal values"),
        Line(f"{what}: CPU", against, mine.cpu_s, theirs.cpu_s, "CPU s", rounds),
        Line(f"{what}: peak memory of the process", against, *megabytes, "MiB", rounds, reach=3.0),
    ]


def feast_python() -> str | None:
    """An interpreter that can run Feast's DuckDB store."""
    if importlib.util.find_spec("ibis") and importlib.util.find_spec("feast"):
        return sys.executable
    return os.environ.get("TIDEWHEEL_FEAST_PYTHON")


def make(folder: Path, n_table: int, n_rows: int, n_users: int) -> None:
    """A table of user statistics over 60 days, and rows that ask at random times of the last 53."""
    random = np.random.default_rng(11)
    day_us, start_us = 86_400_000_000, 1_767_225_600_000_000
    # Every time is another one: what of equal times wins is for tests, not for a peer with another rule.
    times = start_us + np.cumsum(random.integers(1, 2 * DAYS * day_us // n_table, n_table))
    table = {
        "user_id": random.integers(0, n_users, len(times)),
        "event_timestamp": pa.array(times).cast(pa.timestamp("us", tz="UTC")),
        **{name: random.normal(size=len(times)) for name in NAMES},
    }
    folder.mkdir(parents=True)
    stats = pa.table(table)
    pq.write_table(stats, folder / "stats.parquet", row_group_size=500_000)
    (folder / "lake").mkdir()
    pq.write_table(
        stats.append_column("_offset", pa.array(np.arange(len(stats)))),
        folder / "lake" / f"part-{0:020d}-{len(stats):020d}.parquet", row_group_size=500_000,
    )  # fmt: skip
    asked = np.sort(random.integers(start_us + TTL_DAYS * day_us, start_us + DAYS * day_us, n_rows))
    rows = {
        "user_id": random.integers(0, n_users + n_users // 20, n_rows),  # some users have no statistics
        "event_timestamp": pa.array(asked).cast(pa.timestamp("us", tz="UTC")),
        "id": np.arange(n_rows).astype(str),
    }
    pq.write_table(pa.table(rows), folder / "rows.parquet")


def ours(folder: Path) -> Callable[[], Any]:
    from tidewheel.adapters.duckdb_features import DuckDbFeatures
    from tidewheel.features.load import parse_features
    from tidewheel.spec.load import parse_project

    project = parse_project(SPEC, "project.yaml")
    text = (
        f'from tidewheel.features import batch\nstats = batch("stats", by="user", columns={NAMES}, ttl="{TTL_DAYS}d")'
    )
    features = parse_features(text, "features.py", project)
    rows = pq.read_table(folder / "rows.parquet")
    rows = rows.append_column("x", pa.nulls(len(rows), pa.float64()))
    engine = DuckDbFeatures(threads=THREADS)

    def work() -> Any:
        made = engine.compute(features, project, rows, {"stats": folder / "lake"})
        return np.column_stack([made.column(name).to_numpy() for name in NAMES])

    return work


def feast(folder: Path) -> Callable[[], Any]:
    from datetime import timedelta

    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64

    home = folder / "feast-repo"
    home.mkdir(exist_ok=True)
    store = FeatureStore(
        config=RepoConfig(
            project="plain", provider="local", registry=str(home / "registry.db"), entity_key_serialization_version=3,
            offline_store={"type": "duckdb"}, online_store={"type": "sqlite", "path": str(home / "online.db")},
        )
    )  # fmt: skip
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    source = FileSource(path=str(folder / "stats.parquet"), timestamp_field="event_timestamp")
    fields = [Field(name=name, dtype=Float64) for name in NAMES]
    view = FeatureView(name="stats", entities=[user], ttl=timedelta(days=TTL_DAYS), schema=fields, source=source)
    store.apply([user, view])
    rows = pq.read_table(folder / "rows.parquet").to_pandas()

    def work() -> Any:
        made = store.get_historical_features(entity_df=rows, features=[f"stats:{name}" for name in NAMES]).to_arrow()
        order = np.argsort(made.column("id").cast(pa.int64()).to_numpy())
        return np.column_stack([made.column(name).to_numpy() for name in NAMES])[order]

    return work


if __name__ == "__main__":
    _, what, place, out = sys.argv
    np.save(out, measured({"ours": ours, "feast": feast}[what](Path(place))))
