"""Children of the large training set: one process per run, so that its peak memory is its own.

``python -m benchmarks.windowed_set exact|hop|frames FOLDER OUT.npy``
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.children import measured
from tidewheel.clock import DAY_US, HOUR_US, parse_utc
from tidewheel.features.lake import part_name

WINDOWS = {"1h": HOUR_US, "1d": DAY_US, "7d": 7 * DAY_US, "30d": 30 * DAY_US}
THREADS, MEMORY = 2, "2GB"
SPEC = """
name: bench
owner: bench
entities:
  customer: {key: customer_id, type: int64}
sources:
  transactions: {topic: tx, path: tx, event_time: tx_time, event_id: tx_id, columns: {amount: float64, channel: string}}
  labels: {topic: labels, path: labels, event_time: at, event_id: tx_id, columns: {is_fraud: bool}}
request: transactions
label: {source: labels, column: is_fraud, delay: 7d}
training: {window: 7d}
serving: {decision: {approve: 0.0}}
"""
FEATURES = """
from tidewheel.features import count, mean, windowed

card = windowed("transactions", by="customer", windows=["1h", "1d", "7d", "30d"], include_request=True,
                precision="PRECISION", features={
    "n_tx": count(), "n_online": count(where={"channel": "online"}), "amount_mean": mean("amount"),
})
"""


def make_payments(folder: Path, n_events: int, n_rows: int) -> None:
    """60 days of payments of cards that differ in how often they pay; rows are payments of the second half."""
    random = np.random.default_rng(7)
    start_us, n_cards = parse_utc("2026-01-01"), max(n_events // 100, 1)
    share = 1 / np.arange(1, n_cards + 1) ** 0.3
    times = np.sort(random.integers(start_us, start_us + 60 * DAY_US, n_events))
    table = pa.table(
        {
            "customer_id": random.choice(n_cards, size=n_events, p=share / share.sum()),
            "tx_time": pa.array(times).cast(pa.timestamp("us", tz="UTC")),
            "tx_id": np.arange(n_events).astype(str),
            "amount": np.round(random.gamma(2, 20, n_events), 2),
            "channel": np.where(random.random(n_events) < 0.4, "online", "shop"),
            "_offset": np.arange(n_events),
        }
    )
    (folder / "lake").mkdir(parents=True)
    pq.write_table(table, folder / "lake" / part_name(0, n_events), compression="zstd", row_group_size=500_000)
    picked = np.sort(random.choice(np.arange(n_events // 2, n_events), n_rows, replace=False))
    pq.write_table(table.take(pa.array(picked)).drop_columns(["_offset"]), folder / "rows.parquet")


def ours(folder: Path, precision: str) -> Callable[[], NDArray[np.float64]]:
    """What ``tidewheel features compute`` runs."""
    from tidewheel.adapters.duckdb_features import DuckDbFeatures
    from tidewheel.features.load import parse_features
    from tidewheel.spec.load import parse_project

    project = parse_project(SPEC, "project.yaml")
    features = parse_features(FEATURES.replace("PRECISION", precision), "features.py", project)
    rows = pq.read_table(folder / "rows.parquet")
    engine = DuckDbFeatures(memory_limit=MEMORY, threads=THREADS)

    def work() -> NDArray[np.float64]:
        made = engine.compute(features, project, rows, {"transactions": folder / "lake"})
        return np.column_stack([made.column(name).cast(pa.float64()).to_numpy() for name in features.names])

    return work


def frames(folder: Path) -> Callable[[], NDArray[np.float64]]:
    """The query that a person would write: it knows neither duplicates nor late arrivals nor a limit of events."""
    import duckdb

    rows = pq.read_table(folder / "rows.parquet")
    asked = pa.table(
        {"row_no": np.arange(len(rows)), "k": rows.column("customer_id"), "t": rows.column("tx_time").cast(pa.int64())}
    )
    connection = duckdb.connect(":memory:", config={"threads": THREADS, "memory_limit": MEMORY})
    connection.register("asked", asked)
    connection.execute(
        "CREATE VIEW events AS SELECT customer_id AS k, epoch_us(tx_time) AS t, amount, channel "
        f"FROM read_parquet('{folder}/lake/*.parquet')"
    )

    def work() -> NDArray[np.float64]:
        found: Any = connection.execute(frames_sql()).to_arrow_table().sort_by("row_no")
        return np.column_stack([found.column(name).cast(pa.float64()).to_numpy() for name in found.column_names[1:]])

    return work


def frames_sql() -> str:
    aggregates = (
        "count(amount) FILTER (WHERE row_no IS NULL)",
        "count(amount) FILTER (WHERE channel = 'online' AND row_no IS NULL)",
        "avg(amount) FILTER (WHERE row_no IS NULL)",
    )
    selected = ", ".join(
        f"{one} OVER w{name} AS f{number}_{name}" for number, one in enumerate(aggregates) for name in WINDOWS
    )
    windows = ", ".join(
        f"w{name} AS (PARTITION BY k ORDER BY t RANGE BETWEEN {us - 1} PRECEDING AND CURRENT ROW)"
        for name, us in WINDOWS.items()
    )
    return f"""SELECT row_no, {selected} FROM (
  SELECT NULL AS row_no, k, t, amount, channel FROM events UNION ALL SELECT row_no, k, t, NULL, NULL FROM asked
) WINDOW {windows} QUALIFY row_no IS NOT NULL"""


if __name__ == "__main__":
    _, what, place, out = sys.argv
    np.save(out, measured(frames(Path(place)) if what == "frames" else ours(Path(place), what)))
