"""ModelProject: the whole of ``project.yaml`` as one frozen value, and the checks across its sections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from tidewheel.spec.data import Entities, Entity, Label, Source, Sources
from tidewheel.spec.monitoring import Monitoring, Retrain
from tidewheel.spec.scalars import ProjectName, Section
from tidewheel.spec.serving import Rollout, Serving
from tidewheel.spec.training import Training

Path = tuple[str | int, ...]


class ModelProject(Section):
    """One model: its data, how it is trained, served, rolled out, watched and retrained."""

    name: ProjectName
    description: str = ""
    owner: str = Field(min_length=1, description="Team or person that is asked when something is wrong.")
    tier: Literal[1, 2, 3] = Field(
        default=2, description="1: a person approves each retrain and each promotion; 2 and 3: the policy alone."
    )
    entities: Entities
    sources: Sources
    request: str = Field(description="Source whose events callers ask about.")
    label: Label
    training: Training
    serving: Serving
    rollout: Rollout | None = None
    monitoring: Monitoring = Monitoring()
    retrain: Retrain = Retrain()

    @property
    def request_source(self) -> Source:
        return self.sources[self.request]

    @property
    def label_source(self) -> Source:
        return self.sources[self.label.source]

    @property
    def needs_approval(self) -> bool:
        """True where a person approves each retrain and each promotion."""
        return self.tier == 1

    def entity_keys(self) -> dict[str, Entity]:
        """Key column to its entity, in declared order."""
        return {entity.key: entity for entity in self.entities.values()}


def cross_problems(project: ModelProject) -> Iterator[tuple[Path, str]]:
    """Mistakes that only show between sections: (path in the file, message)."""
    sources = ", ".join(project.sources)
    if project.request not in project.sources:
        yield ("request",), f"must name a source (got {project.request!r}); declared are {sources}"
    elif project.request_source.event_id is None:
        yield ("sources", project.request), "the request's source needs an event_id"
    elif project.request_source.topic is None:
        yield ("sources", project.request), "the request's source needs a topic: it is a stream of events"
    if project.label.source not in project.sources:
        yield ("label", "source"), f"must name a source (got {project.label.source!r}); declared are {sources}"
    else:
        columns = project.label_source.columns
        if project.label.column not in columns:
            yield (
                ("label", "column"),
                f"must be a column of {project.label.source!r} (got {project.label.column!r}); "
                f"declared are {', '.join(columns)}",
            )
        elif columns[project.label.column] not in ("bool", "int32", "int64"):
            yield (
                ("sources", project.label.source, "columns", project.label.column),
                f"a label must be bool, int32 or int64 (got {columns[project.label.column]!r})",
            )
        if project.label_source.event_id is None:
            yield ("sources", project.label.source), "the label's source needs an event_id to join labels by"
    yield from _name_problems(project)
    yield from _reference_problems(project)


def _name_problems(project: ModelProject) -> Iterator[tuple[Path, str]]:
    keys = [entity.key for entity in project.entities.values()]
    for name, entity in project.entities.items():
        if keys.count(entity.key) > 1:
            yield ("entities", name, "key"), f"two entities share the key {entity.key!r}"
    for name, source in project.sources.items():
        for column in source.columns:
            if column in (source.event_time, source.event_id) or column in keys:
                yield (
                    ("sources", name, "columns", column),
                    "is a key, the event time or the event id already; columns name the rest",
                )


def _reference_problems(project: ModelProject) -> Iterator[tuple[Path, str]]:
    entities = ", ".join(project.entities)
    for name, source in project.sources.items():
        if source.key is not None and source.key not in project.entities:
            yield (
                ("sources", name, "key"),
                f"must name an entity (got {source.key!r}); declared are {entities}",
            )
        elif source.key is not None and source.topic is None:
            yield ("sources", name, "key"), "is about the messages of a topic; a table has none"
    if project.rollout and project.rollout.unit not in project.entities:
        yield ("rollout", "unit"), f"must name an entity (got {project.rollout.unit!r}); declared are {entities}"
    excluded = project.training.exclude_known_positives
    if excluded is not None and excluded not in project.entities:
        yield (
            ("training", "exclude_known_positives"),
            f"must name an entity (got {excluded!r}); declared are {entities}",
        )
    if project.request in project.sources:
        columns = project.request_source.columns
        wanted: list[tuple[Path, tuple[str, ...]]] = [(("training", "gate", "slices"), project.training.gate.slices)]
        if project.monitoring.performance:
            wanted.append((("monitoring", "performance", "slices"), project.monitoring.performance.slices))
        for path, slices in wanted:
            for index, column in enumerate(slices):
                if column not in columns:
                    yield (
                        (*path, index),
                        f"must be a column of {project.request!r} (got {column!r}); declared are {', '.join(columns)}",
                    )
