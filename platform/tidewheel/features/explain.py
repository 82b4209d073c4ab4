"""What each view and feature keeps, costs and how stale it can be, in numbers a modeler can choose by.

Bytes per entity are of a declaration, not of data: ``worst`` is the most that a state can hold, ``typical`` what it
holds on average of an entity with so many events a day (spread by chance: Poisson).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from tidewheel.clock import DAY_US
from tidewheel.features.declaration import BatchView, FeatureSet, RequestView, StateView, View, WindowedView
from tidewheel.features.kernel import HEADER
from tidewheel.features.tiles import TileLayout
from tidewheel.spec.scalars import duration_text

HEADER_BYTES = 8 * HEADER


def explained(features: FeatureSet, events_per_day: float) -> dict[str, list[dict[str, Any]]]:
    """``views``: one plain object per view; ``features``: one per feature; both in order."""
    facts = zip(features.names, features.dtypes, features.defaults, features.owners, features.descriptions, strict=True)
    named = {name: {"name": name, "dtype": dtype, "default": default, "owner": owner, "description": description}
             for name, dtype, default, owner, description in facts}  # fmt: skip
    return {
        "views": [_view(view, events_per_day) for view in features.views],
        "features": [
            named[name] | _feature(view, index, events_per_day)
            for view in features.views
            for index, name in enumerate(view.feature_names)
        ],
    }


def _view(view: View, events_per_day: float) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": view.name, "kind": view.kind, "features": list(view.feature_names)}
    if isinstance(view, RequestView):
        return facts | {
            "reads": ", ".join(view.arguments), "precision": None, "hops": [], "state_columns": [], "filters": [],
            "bytes_per_event": 0, "retention": None, "max_events": None, "dedup_for": None,
            "typical_bytes": 0, "worst_bytes": 0, "work_per_event": "none", "freshness": None,
        }  # fmt: skip
    state = view.state
    windowed = isinstance(view, WindowedView)
    typical, worst = state_bytes(view, events_per_day)
    return facts | {
        "reads": f"{view.source} by {', '.join(view.keys)}",
        "precision": view.precision if isinstance(view, WindowedView) else None,
        "hops": [duration_text(level.hop_us) for level in state.tiles.levels] if state.tiles else [],
        "state_columns": ["time", "id", "filters", *(column for column, _ in state.columns)],
        "filters": [dict(one) for one in state.filters],
        "bytes_per_event": state.record_bytes,
        "retention": duration_text(state.retention_us),
        "max_events": view.max_events if isinstance(view, WindowedView) else None,
        "dedup_for": duration_text(state.dedup_us) if windowed else None,
        "typical_bytes": typical,
        "worst_bytes": worst,
        "work_per_event": _work(state),
        "freshness": None if view.freshness_us is None else duration_text(view.freshness_us),
    }


def state_bytes(view: WindowedView | BatchView, events_per_day: float) -> tuple[int, int | None]:
    """Bytes of one entity's state: typical, and at worst (None: nothing but time bounds it)."""
    state, per_us = view.state, events_per_day / DAY_US
    if state.tiles is None:
        events = min(per_us * state.retention_us, state.capacity)
        bounded = isinstance(view, WindowedView)
        most = HEADER_BYTES + state.capacity * state.record_bytes if bounded else None
        return HEADER_BYTES + round(events) * state.record_bytes, most
    counts = ring_tiles(state.tiles)
    filled = sum(count * -math.expm1(-per_us * level.hop_us)
                 for count, level in zip(counts, state.tiles.levels, strict=True))  # fmt: skip
    typical = HEADER_BYTES + round(per_us * recent_us(state)) * state.record_bytes + round(filled) * _tile_bytes(state)
    # The newest events, which also are kept one by one, come on top: as many as there are.
    return typical, HEADER_BYTES + sum(counts) * _tile_bytes(state)


def ring_tiles(layout: TileLayout) -> list[int]:
    """How many tiles each level keeps at most."""
    counts = []
    for number, level in enumerate(layout.levels):
        reach = layout.delay_us + level.longest_us if level.longest_us else 0
        if number + 1 < len(layout.levels) and not layout.delay_us:
            reach = max(reach, layout.levels[number + 1].hop_us)
        counts.append((reach + layout.lateness_us) // level.hop_us + 2)
    return counts


def recent_us(state: StateView) -> int:
    """How far back events are kept one by one beside tiles."""
    if state.tiles is None:
        return state.retention_us
    return max(state.tiles.lateness_us, state.dedup_us) + state.tiles.levels[0].hop_us


def _tile_bytes(state: StateView) -> int:
    return 0 if state.tiles is None else 8 * state.tiles.width


def _work(state: StateView) -> str:
    if state.tiles is None:
        return f"1 record of {state.record_bytes} B"
    n = len(state.tiles.levels)
    tiles = f"{n} tile{'s' if n > 1 else ''}"
    return f"1 record of {state.record_bytes} B, {tiles} of {_tile_bytes(state)} B"


def _feature(view: View, index: int, events_per_day: float) -> dict[str, Any]:
    """What one value costs to read and how far its window's edge can be off."""
    facts: dict[str, Any] = {
        "view": view.name, "window": None, "aggregation": None, "precision": None, "max_events": None,
        "edge_staleness": "0s", "freshness": None,
    }  # fmt: skip
    if isinstance(view, RequestView):
        return facts | {"read_cost": "one call for all rows"}
    facts["freshness"] = None if view.freshness_us is None else duration_text(view.freshness_us)
    if isinstance(view, BatchView):
        return facts | {"read_cost": "1 row", "edge_staleness": duration_text(view.ttl_us)}
    feature = view.features[index]
    window_us = view.windows_us[feature.window_index]
    facts |= {
        "window": duration_text(window_us), "aggregation": feature.aggregation.name,
        "precision": view.precision, "max_events": view.max_events,
    }  # fmt: skip
    per_us = events_per_day / DAY_US
    if view.state.tiles is None:
        typical = min(round(per_us * window_us), view.max_events or 0)
        return facts | {"read_cost": f"{typical:,} events, at most {view.max_events:,}"}
    hop_us = view.hops_us[feature.window_index]
    levels = [level.hop_us for level in view.state.tiles.levels if level.hop_us <= hop_us]
    heads = 0 if view.delay_us else sum(coarse // fine for fine, coarse in itertools.pairwise(levels))
    cost = f"up to {window_us // hop_us + 1 + heads:,} tiles"
    if not view.delay_us:
        cost += f" and the events of {duration_text(levels[0])}"
    return facts | {"read_cost": cost, "edge_staleness": duration_text(hop_us)}
