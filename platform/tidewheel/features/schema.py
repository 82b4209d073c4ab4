"""What a project's sources and requests look like to features: topics, keys, columns."""

from __future__ import annotations

from tidewheel.features.declaration import RequestSchema
from tidewheel.spec.project import ModelProject


def topic_of(project: ModelProject, source_name: str) -> str:
    """Event log topic of a source: its topic, or for a table its name."""
    return project.sources[source_name].topic or source_name


def request_schema(project: ModelProject) -> RequestSchema:
    """What a request carries. A label column kept in the request source is not known at request time."""
    source = project.request_source
    hidden = project.label.column if project.label.source == project.request else None
    return RequestSchema(
        source=project.request,
        event_time=source.event_time,
        event_id=source.event_id or "",
        keys={entity.key: entity.type for entity in project.entities.values()},
        columns={name: kind for name, kind in source.columns.items() if name != hidden},
    )
