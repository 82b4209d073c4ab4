"""The oracle: what each feature means, in nested loops over plain Python values, as slow and plain as can be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tidewheel.features.declaration import BatchView, FeatureSet, WindowedFeature, WindowedView

Event = Mapping[str, Any]  # key columns, "t" (us), "id", columns; in order of arrival


def naive_values(
    features: FeatureSet, rows: Sequence[Event], events: Mapping[str, Sequence[Event]]
) -> dict[str, list[float | None]]:
    """Windowed and batch features of every row, defaults applied."""
    found: dict[str, list[float | None]] = {}
    for view in features.views:
        if isinstance(view, WindowedView):
            for feature in view.features:
                found[feature.name] = [_windowed(view, feature, row, events[view.source]) for row in rows]
        elif isinstance(view, BatchView):
            for column in view.columns:
                found[column] = [_batch(view, column, row, events[view.source]) for row in rows]
    return found


def _windowed(view: WindowedView, feature: WindowedFeature, row: Event, events: Sequence[Event]) -> float | None:
    seen: set[Any] = set()
    inside: list[Event] = []
    t, window_us = row["t"], view.windows_us[feature.window_index]
    own_is_known = False
    for event in events:
        if any(event[key] != row[key] for key in view.keys) or event["id"] in seen:
            continue
        seen.add(event["id"])
        if event["id"] == row["id"] and event["t"] <= t:
            own_is_known = True
            if view.of_request_source and not view.include_request and view.delay_us == 0:
                continue
        if t - view.delay_us - window_us < event["t"] <= t - view.delay_us:
            inside.append(event)
    if view.include_request and not own_is_known:
        inside.append(row)
    if feature.filter_index is not None:
        one = view.state.filters[feature.filter_index]
        inside = [event for event in inside if all(event[column] == value for column, value in one)]
    value = _aggregate(feature, inside)
    return feature.default if value is None else value


def _aggregate(feature: WindowedFeature, inside: Sequence[Event]) -> float | None:
    if feature.aggregation.name == "count":
        return float(len(inside))
    raw = [event[feature.column] for event in inside]
    values = [float(value) for value in raw if value is not None and not math.isnan(value)]
    if feature.aggregation.name == "sum":
        return math.fsum(values)
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    return {
        "mean": mean,
        "min": min(values),
        "max": max(values),
        "std": math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values)),
    }[feature.aggregation.name]


def _batch(view: BatchView, column: str, row: Event, events: Sequence[Event]) -> float | None:
    best: Event | None = None
    for event in events:
        if all(event[key] == row[key] for key in view.keys) and event["t"] <= row["t"]:
            best = event if best is None or event["t"] >= best["t"] else best
    if best is None or best["t"] < row["t"] - view.ttl_us or best[column] is None:
        return None
    return float(best[column])
