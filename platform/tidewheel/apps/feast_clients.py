"""Tell stock Feast clients what a home serves: its folder ``feast`` and the registry, in the background."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidewheel.adapters.connections import read_connections
from tidewheel.adapters.feast_folder import Writing, start_writing, why_not
from tidewheel.adapters.local_home import LocalHome
from tidewheel.apps.wanted_code import wanted_code
from tidewheel.errors import TidewheelError
from tidewheel.features.declaration import FeatureSet
from tidewheel.features.feast_definitions import feast_definitions
from tidewheel.features.lake import source_paths
from tidewheel.features.load import load_features
from tidewheel.spec.load import load_project


@dataclass(frozen=True)
class Telling:
    """``state``: writing, current, not installed or off."""

    state: str
    writing: Writing | None = None

    def begun(self) -> dict[str, str]:
        """As it is now, without waiting."""
        return {"state": self.state, "reason": ""}

    def finish(self) -> dict[str, str]:
        """As it ends: written instead of writing, or failed with the ``reason``. What fails here stops nothing: only
        stock Feast clients read it."""
        if self.writing is None:
            return self.begun()
        reason = self.writing.finish()
        return {"state": "failed" if reason else "written", "reason": reason}


def project_definitions(home: LocalHome, folder: Path) -> dict[str, Any]:
    """Raises ContractViolation where the project's features cannot be laid out; to be asked before it is applied."""
    project = load_project(folder)
    lake = source_paths(home.lake, project)
    return feast_definitions(project, load_features(folder, project), _deployed(home), lake)


def start_telling(home: LocalHome, definitions: dict[str, Any]) -> Telling:
    if without := why_not():
        return Telling(without)
    writing = start_writing(home.feast, definitions, read_connections(home), home.online_db)
    return Telling("writing", writing) if writing is not None else Telling("current")


def told_line(told: dict[str, str], folder: Path) -> str:
    """For a person, one line; empty where nothing changed."""
    return {
        "writing": f"Feast clients: feast -c {folder} ..., in some seconds",
        "written": f"Feast clients: feast -c {folder} ...",
        "failed": f"Feast clients were not told: {told['reason']}; run 'tidewheel apply' again",
        "not installed": "Feast clients were not told: feast is not installed; install tidewheel[feast]",
    }.get(told["state"], "")


def _deployed(home: LocalHome) -> list[FeatureSet]:
    """Features of the deployed versions; one that cannot be loaded is the trouble of whoever serves it."""
    found = []
    for wanted in wanted_code(home):
        if wanted.applied:
            continue
        try:
            found.append(load_features(wanted.folder, load_project(wanted.folder)))
        except TidewheelError:
            continue
    return found
