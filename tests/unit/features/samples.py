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

# The same with every kind of window.
EVERY_SPEC = SPEC.replace("items: int32", "items: int32, points: int64")
EVERY_FEATURES = (
    "from tidewheel.features import distinct, first, last, ratio, time_since_last\n"
    + FEATURES
    + """
pair = windowed("payments", by=["shop", "card"], windows=["30m", "5h"], features={
    "pair_n": count(), "pair_first": first("points"), "pair_last": last("amount"), "pair_points": sum("points"),
    "pair_channels": distinct("channel"), "pair_amounts": distinct("amount", where={"channel": "shop"}),
    "pair_online": ratio({"channel": "online"}, default=-1.0), "pair_since": time_since_last({"channel": "online"}),
    "pair_least": min("points"), "pair_most": max("points"), "pair_usual": mean("points")})
few = windowed("payments", by="shop", windows=["30m", "1h"], max_events=3, include_request=True, features={
    "few_n": count(), "few_last": last("points", default=0), "few_kinds": distinct("items")})
busy = windowed("payments", by="card", windows=["10m", "1h"], precision="hop", dedup_for="1d", include_request=True,
    features={"busy_n": count(), "busy_total": sum("amount"), "busy_usual": mean("amount"), "busy_most": max("items"),
              "busy_spread": std("amount", where={"channel": "online"}), "busy_points": sum("points")})
quiet = windowed("payments", by=["card", "shop"], windows=["15m", "3h"], precision="hop", hop="15m", dedup_for="1d",
    features={"quiet_n": count(), "quiet_last": last("points"), "quiet_first": first("amount"),
              "quiet_least": min("points"), "quiet_online": ratio({"channel": "online"}, among={"items": 2}),
              "quiet_since": time_since_last(), "quiet_spread": std("points")})
long = windowed("payments", by="shop", windows=["1h", "12h"], precision="hop", dedup_for="1d", features={
    "long_n": count(), "long_total": sum("amount"), "long_last": last("items"), "long_spread": std("amount")})
ruled = windowed("labels", by="card", windows=["30m", "12h"], delay="label", precision="hop", dedup_for="1d",
    features={"ruled_n": count(), "ruled_frauds": sum("is_fraud"), "ruled_last": last("is_fraud"),
              "ruled_since": time_since_last()})
"""
)

MINUTE_US = 60_000_000
START_US = 1_522_540_800_000_000  # 2018-04-01T00:00:00Z

Event = Mapping[str, Any]


def sample_project() -> ModelProject:
    return parse_project(SPEC, "project.yaml")


def sample_features(project: ModelProject | None = None) -> FeatureSet:
    return parse_features(FEATURES, "features.py", project or sample_project())


def every_project() -> ModelProject:
    return parse_project(EVERY_SPEC, "project.yaml")


def every_features(project: ModelProject | None = None) -> FeatureSet:
    return parse_features(EVERY_FEATURES, "features.py", project or every_project())


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
            "points": pa.array([event.get("points") for event in events], pa.int64()),
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
