"""What stock Feast clients are told about a project: entities, one feature view per state, one service, as plain data.

An adapter writes it to a Feast registry. Functions of the request are not among it: Feast keeps them as pickled code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tidewheel.clock import SECOND_US
from tidewheel.errors import ContractViolation
from tidewheel.features.declaration import BatchView, FeatureSet, RequestView, WindowedView
from tidewheel.features.feast_layout import STATE, feast_project, layout_problems
from tidewheel.spec.project import ModelProject

MANAGED = {"managed_by": "tidewheel"}


def feast_definitions(
    project: ModelProject, features: FeatureSet, deployed: Iterable[FeatureSet], lake: Mapping[str, Path]
) -> dict[str, Any]:
    """Definitions of the project in force and of the deployed versions, whose states live on.

    ``lake`` says where each source's events are. Raises ContractViolation where two features would share a field.
    """
    current = [view for view in features.views if not isinstance(view, RequestView)]
    states = {view.state.state_id: view for view in current}
    for older in deployed:
        for view in older.views:
            if not isinstance(view, RequestView) and view.state.project == project.name:
                states.setdefault(view.state.state_id, view)
    problems = layout_problems(view.state for view in states.values())
    if problems:
        raise ContractViolation("\n".join(problems))
    entities = {column: kind for view in states.values() for column, kind in view.state.keys}
    sources = {view.source for view in states.values()}
    return {
        "project": feast_project(project.name),
        "owner": project.owner,
        "description": project.description,
        "entities": [{"name": column, "type": kind} for column, kind in sorted(entities.items())],
        "sources": [
            {"name": source, "path": str(lake[source]), "event_time": project.sources[source].event_time}
            for source in sorted(sources)
            if source in lake and source in project.sources
        ],
        "views": [_view(view, project) for view in states.values() if view.source in project.sources],
        "service": {"name": feast_project(project.name), "views": [view.state.feast_view for view in current]},
    }


def _view(view: WindowedView | BatchView, project: ModelProject) -> dict[str, Any]:
    state = view.state
    tags = {**MANAGED, "view": view.name, "kind": view.kind, "state_id": state.state_id}
    if view.freshness_us is not None:
        tags["freshness_s"] = f"{view.freshness_us / SECOND_US:g}"
    return {
        "name": state.feast_view,
        "source": view.source,
        "keys": [list(key) for key in state.keys],
        "features": [*(list(feature) for feature in state.published), [STATE, "bytes"]],
        "ttl_s": -(-state.retention_us // SECOND_US),
        "owner": view.owner or project.owner,
        "description": view.description,
        "tags": tags,
    }
