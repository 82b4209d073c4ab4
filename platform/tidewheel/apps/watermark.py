"""How far event time has come: the clock of everything that follows the data."""

from __future__ import annotations

from pathlib import Path

from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.sqlite_store import SqliteOnlineStore
from tidewheel.features.load import load_features
from tidewheel.spec.project import ModelProject


def watermark_us(home: LocalHome, code: Path, project: ModelProject) -> int | None:
    """Watermark of the request source: that of its slowest feature state. None before the first event."""
    if not home.online_db.is_file():
        return None
    states = [state for state in load_features(code, project).states if state.source == project.request]
    store = SqliteOnlineStore(home.online_db)
    try:
        told = store.progress(states)
    finally:
        store.close()
    # A partition without traffic does not hold time back: of one state the newest counts.
    marks = [max(one.watermark_us for one in told[s.state_id].values()) for s in states if s.state_id in told]
    return min(marks) if marks and len(marks) == len(states) else None
