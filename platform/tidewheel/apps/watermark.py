"""How far event time has come: the clock of everything that follows the data."""

from __future__ import annotations

from pathlib import Path

from tidewheel.adapters.connections import has_online_store, open_online_store
from tidewheel.adapters.local_home import LocalHome
from tidewheel.features.load import load_features
from tidewheel.spec.project import ModelProject


def watermark_us(home: LocalHome, code: Path, project: ModelProject) -> int | None:
    """Watermark of the request source: that of its slowest feature state. None before the first event."""
    if not has_online_store(home):
        return None
    states = [state for state in load_features(code, project).states if state.source == project.request]
    store = open_online_store(home)
    try:
        told = store.progress(states)
    finally:
        store.close()
    # A partition without traffic does not hold time back: of one state the newest counts.
    marks = [max(one.watermark_us for one in told[s.state_id].values()) for s in states if s.state_id in told]
    return min(marks) if marks and len(marks) == len(states) else None
