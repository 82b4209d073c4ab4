"""A training set of 12 windowed features: our SQL against the two queries a person would write.

The naive queries know neither duplicates nor events that arrive after their request; the payments here have none, so
all must give equal values, which is checked. All read the same Parquet file with the same settings of DuckDB.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.children import alternating_children, child
from benchmarks.lines import Line
from benchmarks.measure import alternating
from benchmarks.windowed_set import make_payments
from benchmarks.world import TEMPLATE, many_payments, scratch
from tidewheel.adapters.duckdb_features import DuckDbFeatures
from tidewheel.clock import DAY_US, HOUR_US
from tidewheel.features.load import parse_features
from tidewheel.features.replay import compute_by_stream
from tidewheel.spec.load import load_project

SIZES = {"full": (1_000_000, 200_000, 3), "tiny": (6_000, 1_000, 1)}  # events, rows, rounds
LARGE = {"full": (10_000_000, 1_000_000, 3), "tiny": (6_000, 1_000, 1)}  # in processes of their own
WINDOWS = {"1h": HOUR_US, "1d": DAY_US, "7d": 7 * DAY_US, "30d": 30 * DAY_US}
THREADS = 2
MEMORY = "4GB"
FEATURES = """
from tidewheel.features import count, mean, windowed

card = windowed("transactions", by="customer", windows=["1h", "1d", "7d", "30d"], include_request=True, features={
    "card_n_tx": count(), "card_n_online": count(where={"channel": "online"}), "card_amount_mean": mean("amount"),
})
"""
Values = NDArray[np.float64]


def run(size: str) -> list[Line]:
    """Lines for time and memory; raises AssertionError where engines disagree."""
    return [*against_queries(size), *large(size)]


def large(size: str) -> list[Line]:
    """Both precisions against one UNION ALL + RANGE query, each in a process of its own."""
    n_events, n_rows, rounds = LARGE[size]
    folder = scratch() / f"windowed-{size}"
    make_payments(folder, n_events, n_rows)
    works = {
        name: partial(child, "benchmarks.windowed_set", name, folder, folder / f"{name}.npy")
        for name in ("exact", "frames", "hop")
    }
    found = alternating_children(rounds, works)
    ours, theirs = np.load(folder / "exact.npy"), np.load(folder / "frames.npy")
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, err_msg="exact disagrees")
    exact, hop, frames = found["exact"], found["hop"], found["frames"]
    what = f"training set, {n_events:,} events x {n_rows:,} rows x {ours.shape[1]} features"
    peer, equal = "one UNION ALL + RANGE query", "equal values"
    limit = "the limit of 2 GiB"
    return [
        Line(f"{what}, exact: wall", peer, exact.wall_s, frames.wall_s, "s", rounds, reach=1 / 1.3, note=equal),
        Line(f"{what}, exact: CPU", peer, exact.cpu_s, frames.cpu_s, "CPU s", rounds, reach=1 / 1.3),
        Line(f"{what}, exact: peak memory of the process", limit, exact.peak_bytes / 2**20, 2048.0, "MiB",
             rounds, reach=1.0, note=f"the query: {frames.peak_bytes / 2**20:,.0f}"),
        Line(f"{what}, hop: wall", peer, hop.wall_s, frames.wall_s, "s", rounds),
        Line(f"{what}, hop: CPU", peer, hop.cpu_s, frames.cpu_s, "CPU s", rounds),
        Line(f"{what}, hop: peak memory of the process", peer, hop.peak_bytes / 2**20, frames.peak_bytes / 2**20, "MiB",
             rounds),
    ]  # fmt: skip


def against_queries(size: str) -> list[Line]:
    """In this process, with the inequality join and the stream engine, which a larger set would keep busy for long."""
    n_events, n_rows, rounds = SIZES[size]
    folder, payments = many_payments(n_events)
    rows = payments.slice(n_events - n_rows)
    project = load_project(TEMPLATE)
    features = parse_features(FEATURES, "features.py", project)
    sources = {"transactions": folder}
    engine = DuckDbFeatures(memory_limit=MEMORY, threads=THREADS)

    found = alternating(
        rounds,
        {
            "ours": _matrix(features.names, lambda: engine.compute(features, project, rows, sources)),
            "join": _matrix(features.names, lambda: _naive(folder, rows, _JOIN)),
            "frames": _matrix(features.names, lambda: _naive(folder, rows, _FRAMES)),
            "stream": _matrix(features.names, lambda: compute_by_stream(features, project, rows, sources)),
        },
    )
    ours, values = found["ours"]
    for name, (_, others) in found.items():
        np.testing.assert_allclose(others, values, rtol=1e-9, err_msg=f"{name} disagrees")
    what = f"training set, {n_events:,} events x {n_rows:,} rows x {len(features.names)} features"
    lines = []
    for peer, against in (("join", "naive inequality join"), ("frames", "naive UNION ALL + RANGE windows")):
        usage = found[peer][0]
        lines.append(Line(f"{what}: wall", against, ours.wall_s, usage.wall_s, "s", rounds, note="equal values"))
        lines.append(Line(f"{what}: CPU", against, ours.cpu_s, usage.cpu_s, "CPU s", rounds))
        megabytes = ours.peak_bytes / 2**20, usage.peak_bytes / 2**20
        lines.append(Line(f"{what}: memory", against, *megabytes, "MiB over start", rounds))
    stream, join = found["stream"][0], found["join"][0]
    lines.append(
        Line(f"{what}: wall of the stream engine", "naive inequality join", stream.wall_s, join.wall_s, "s", rounds,
             note="equal values")
    )  # fmt: skip
    return lines


def _matrix(names: tuple[str, ...], compute: Callable[[], pa.Table]) -> Callable[[], Values]:
    def work() -> Values:
        table = compute()
        return np.column_stack([table.column(name).cast(pa.float64()).to_numpy() for name in names])

    return work


def _naive(folder: Path, rows: pa.Table, query: str) -> pa.Table:
    asked = pa.table(
        {
            "row_no": np.arange(len(rows)),
            "k": rows.column("customer_id"),
            "t": rows.column("tx_time").cast(pa.int64()),
        }
    )
    connection = duckdb.connect(":memory:", config={"threads": THREADS, "memory_limit": MEMORY})
    try:
        connection.register("asked", asked)
        connection.execute(
            "CREATE VIEW events AS SELECT customer_id AS k, epoch_us(tx_time) AS t, amount, channel "
            f"FROM read_parquet('{folder}/*.parquet')"
        )
        return connection.execute(query).to_arrow_table().sort_by("row_no")
    finally:
        connection.close()


def _selected(member: Callable[[str, int], str], over: Callable[[str], str]) -> str:
    parts = []
    for feature, aggregate, condition in (
        ("card_n_tx", "count(amount)", "TRUE"),
        ("card_n_online", "count(amount)", "channel = 'online'"),
        ("card_amount_mean", "avg(amount)", "TRUE"),
    ):
        parts += [
            f"{aggregate} FILTER (WHERE {condition} AND {member(name, us)}){over(name)} AS {feature}_{name}"
            for name, us in WINDOWS.items()
        ]
    return ",\n".join(parts)


_JOIN = f"""SELECT row_no, {_selected(lambda name, us: f"e.t > a.t - {us}", lambda name: "")}
FROM asked a LEFT JOIN events e ON e.k = a.k AND e.t > a.t - {30 * DAY_US} AND e.t <= a.t GROUP BY row_no"""
_FRAMES = f"""SELECT row_no, {_selected(lambda name, us: "row_no IS NULL", lambda name: f" OVER w{name}")}
FROM (SELECT NULL AS row_no, k, t, amount, channel FROM events
      UNION ALL SELECT row_no, k, t, NULL, NULL FROM asked)
WINDOW {
    ", ".join(
        f"w{name} AS (PARTITION BY k ORDER BY t RANGE BETWEEN {us - 1} PRECEDING AND CURRENT ROW)"
        for name, us in WINDOWS.items()
    )
}
QUALIFY row_no IS NOT NULL"""
