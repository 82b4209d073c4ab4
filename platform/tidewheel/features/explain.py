"""What each view keeps and costs, in numbers and words a modeler can choose by."""

from __future__ import annotations

from typing import Any

from tidewheel.features.declaration import FeatureSet, RequestView, WindowedView
from tidewheel.spec.scalars import duration_text


def explained_views(features: FeatureSet) -> list[dict[str, Any]]:
    """One plain object per view, in order. ``read_cost`` names what the work of one read grows with."""
    return [_explained(view) for view in features.views]


def _explained(view: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": view.name, "kind": view.kind, "features": list(view.feature_names)}
    if isinstance(view, RequestView):
        return facts | {
            "reads": ", ".join(view.arguments), "state_columns": [], "filters": [], "bytes_per_event": 0,
            "retention": None, "read_cost": "one call for all rows", "freshness": None,
        }  # fmt: skip
    cost = "one lookup, one row"
    if isinstance(view, WindowedView):
        cost = f"one lookup, then the entity's events in {duration_text(max(view.windows_us))}"
    return facts | {
        "reads": f"{view.source} by {', '.join(view.keys)}",
        "state_columns": ["time", "id", "filters", *(column for column, _ in view.state.columns)],
        "filters": [dict(one) for one in view.state.filters],
        "bytes_per_event": view.state.record_bytes,
        "retention": duration_text(view.state.retention_us),
        "read_cost": cost,
        "freshness": None if view.freshness_us is None else duration_text(view.freshness_us),
    }
