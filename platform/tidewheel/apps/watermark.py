"""How far event time has come: the clock of everything that follows the data."""

from __future__ import annotations

from pathlib import Path

from tidewheel.adapters.connections import has_online_store, open_online_store
from tidewheel.adapters.local_home import LocalHome
from tidewheel.features.declaration import StateView
from tidewheel.features.load import load_features
from tidewheel.features.ports import Progress
from tidewheel.spec.project import ModelProject


def watermark_us(home: LocalHome, code: Path, project: ModelProject) -> int | None:
    """Watermark of the request source: that of its slowest feature state. None before the first event."""
    told = _told(home, code, project)
    states = [one for state, one in told if state.source == project.request]
    # A partition without traffic does not hold time back: of one state the newest counts.
    marks = [max(partition.watermark_us for partition in one) for one in states if one]
    return min(marks) if marks and len(marks) == len(states) else None


def stream_lag(home: LocalHome, code: Path, project: ModelProject) -> dict[str, int]:
    """How many offsets the slowest state of each source is behind its log, of those that are behind."""
    lag: dict[str, int] = {}
    for state, told in _told(home, code, project):
        behind = sum(max(one.end - one.position, 0) for one in told)
        if behind:
            lag[state.source] = max(lag.get(state.source, 0), behind)
    return lag


def _told(home: LocalHome, code: Path, project: ModelProject) -> list[tuple[StateView, list[Progress]]]:
    """Every state with what its worker last said, by partition."""
    if not has_online_store(home):
        return []
    states = load_features(code, project).states
    store = open_online_store(home)
    try:
        told = store.progress(states)
    finally:
        store.close()
    return [(state, list(told.get(state.state_id, {}).values())) for state in states]
