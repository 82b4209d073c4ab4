"""A small project that uses every kind of view, and ways to make its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tidewheel.features.declaration import FeatureSet
from tidewheel.features.load import parse_features
from tidewheel.spec.load import parse_project
from tidewheel.spec.project import ModelProject

SPEC = """
name: sample
owner: tests
entities:
  card: {key: card, type: string}
  shop: {key: shop, type: int64}
sources:
  payments:
    {topic: payments, path: payments, event_time: at, event_id: payment, allowed_lateness: 10m,
     columns: {amount: float64, channel: string, items: int32}}
  labels: {topic: labels, path: labels, event_time: at, event_id: payment, columns: {is_fraud: bool}}
  profiles: {path: profiles, event_time: at, columns: {age: int32, vip: bool}}
request: payments
label: {source: labels, column: is_fraud, delay: 2h}
training: {window: 1d}
serving: {decision: {approve: 0.0}}
"""

FEATURES = """
import numpy as np
from tidewheel.features import batch, count, max, mean, min, request, std, sum, windowed

card = windowed("payments", by="card", windows=["10m", "1h"], include_request=True, features={
    "n": count(), "n_online": count(where={"channel": "online"}), "total": sum("amount"),
    "usual": mean("amount", default=-1.0), "least": min("amount"), "most": max("items"), "spread": std("amount"),
    "online_total": sum("amount", where={"channel": "online", "items": 2}),
}, freshness="5s")
others = windowed("payments", by="shop", windows={"HOUR": "1h"}, features={
    "shop_n": count(), "shop_usual": mean("amount"), "shop_spread": std("amount")})
judged = windowed("labels", by="shop", windows=["1h", "1d"], delay="label", features={
    "judged": count(), "fraud_ratio": mean("is_fraud", default=0.0)})
profile = batch("profiles", by="card", columns=["age", "vip"], ttl="1h")


@request
def is_dear(amount, usual_1h):
    return amount > 2 * usual_1h
"""

MINUTE_US = 60_000_000
START_US = 1_522_540_800_000_000  # 2018-04-01T00:00:00Z

Event = Mapping[str, Any]


def sample_project() -> ModelProject:
    return parse_project(SPEC, "project.yaml")


def sample_features(project: ModelProject | None = None) -> FeatureSet:
    return parse_features(FEATURES, "features.py", project or sample_project())


def payments_table(events: Sequence[Event]) -> pa.Table:
    return pa.table(
        {
            "card": pa.array([event["card"] for event in events], pa.string()),
            "shop": pa.array([event["shop"] for event in events], pa.int64()),
            "at": _times(events),
            "payment": pa.array([event["id"] for event in events], pa.string()),
            "amount": pa.array([event["amount"] for event in events], pa.float64()),
            "channel": pa.array([event["channel"] for event in events], pa.string()),
            "items": pa.array([event["items"] for event in events], pa.int32()),
        }
    )


def labels_table(events: Sequence[Event]) -> pa.Table:
    return pa.table(
        {
            "card": pa.array([event["card"] for event in events], pa.string()),
            "shop": pa.array([event["shop"] for event in events], pa.int64()),
            "at": _times(events),
            "payment": pa.array([event["id"] for event in events], pa.string()),
            "is_fraud": pa.array([event["is_fraud"] for event in events], pa.bool_()),
        }
    )


def profiles_table(events: Sequence[Event]) -> pa.Table:
    return pa.table(
        {
            "card": pa.array([event["card"] for event in events], pa.string()),
            "at": _times(events),
            "age": pa.array([event["age"] for event in events], pa.int32()),
            "vip": pa.array([event["vip"] for event in events], pa.bool_()),
        }
    )


def _times(events: Sequence[Event]) -> pa.Array:
    return pa.array([event["t"] for event in events], pa.int64()).cast(pa.timestamp("us", tz="UTC"))


def written(folder: Path, tables: Mapping[str, pa.Table]) -> dict[str, Path]:
    """Each table as one Parquet file."""
    import pyarrow.parquet as pq

    paths = {}
    for name, table in tables.items():
        paths[name] = folder / f"{name}.parquet"
        pq.write_table(table, paths[name])
    return paths
