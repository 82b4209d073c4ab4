"""The oracle: what each feature means, in nested loops over plain Python values, as slow and plain as can be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tidewheel.features.declaration import BatchView, FeatureSet, WindowedFeature, WindowedView
from tidewheel.features.keys import hashed_ids

Event = Mapping[str, Any]  # key columns, "t" (us), "id", columns; in order of arrival
Values = dict[str, list[float | None]]


def naive_values(features: FeatureSet, rows: Sequence[Event], events: Mapping[str, Sequence[Event]]) -> Values:
    """Windowed and batch features of every row, defaults applied."""
    found: Values = {}
    for view in features.views:
        if isinstance(view, WindowedView):
            for feature in view.features:
                found[feature.name] = [_windowed(view, feature, row, events[view.source]) for row in rows]
        elif isinstance(view, BatchView):
            for column in view.columns:
                found[column] = [_batch(view, column, row, events[view.source]) for row in rows]
    return found


def window_us(view: WindowedView, window: int, t: int) -> tuple[int, int]:
    """What the window covers, its left edge excluded and its right edge included."""
    left, right = t - view.delay_us - view.windows_us[window], t - view.delay_us
    if view.precision == "exact":
        return left, right
    hop = view.hops_us[window]
    return left - left % hop, right - right % hop if view.delay_us else right


def _windowed(view: WindowedView, feature: WindowedFeature, row: Event, events: Sequence[Event]) -> float | None:
    seen: set[Any] = set()
    inside: list[Event] = []
    t = row["t"]
    left, right = window_us(view, feature.window_index, t)
    own_is_known = False
    for event in events:
        if any(event[key] != row[key] for key in view.keys) or event["id"] in seen:
            continue
        seen.add(event["id"])
        if event["id"] == row["id"] and event["t"] <= t:
            own_is_known = True
            if view.of_request_source and not view.include_request and view.delay_us == 0:
                continue
        if left < event["t"] <= right:
            inside.append(event)
    if view.include_request and not own_is_known:
        inside.append(row)
    value = None
    if view.max_events is None or len(inside) <= view.max_events:
        value = _aggregate(view, feature, inside, t)
    return feature.default if value is None else value


def _passes(view: WindowedView, index: int | None, event: Event) -> bool:
    return index is None or all(event[column] == value for column, value in view.state.filters[index])


def _aggregate(view: WindowedView, feature: WindowedFeature, inside: Sequence[Event], t: int) -> float | None:
    name = feature.aggregation.name
    inside = [event for event in inside if _passes(view, feature.filter_index, event)]
    if name == "count":
        return float(len(inside))
    if name == "ratio":
        met = sum(_passes(view, feature.condition_index, event) for event in inside)
        return met / len(inside) if inside else None
    if name == "time_since_last":
        return (t - max(event["t"] for event in inside)) / 1e6 if inside else None
    inside = [event for event in inside if not _missing(event[feature.column])]
    values = [event[feature.column] for event in inside]
    if name == "distinct":
        return float(len(set(values)))
    if name == "sum":
        return _sum(values)
    if not values:
        return None
    if name in ("first", "last"):
        pick = max if name == "last" else min
        return float(pick(inside, key=lambda event: (event["t"], id_hash(event["id"])))[feature.column])
    mean = sum(values) / len(values) if isinstance(values[0], int) else math.fsum(values) / len(values)
    return {
        "mean": mean,
        "min": float(min(values)),
        "max": float(max(values)),
        "std": math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values)),
    }[name]


def _sum(values: Sequence[Any]) -> float | None:
    if values and isinstance(values[0], int):  # bool, too
        total = sum(values)
        return float(total) if -(2**63) <= total < 2**63 else None
    return math.fsum(values)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def id_hash(text: str) -> int:
    """What orders events of one time: the id's hash as a signed number."""
    return int(hashed_ids([text.encode()]).view("i8")[0])


def _batch(view: BatchView, column: str, row: Event, events: Sequence[Event]) -> float | None:
    best: Event | None = None
    for event in events:
        if all(event[key] == row[key] for key in view.keys) and event["t"] <= row["t"]:
            best = event if best is None or event["t"] >= best["t"] else best
    if best is None or best["t"] < row["t"] - view.ttl_us or best[column] is None:
        return None
    return float(best[column])
