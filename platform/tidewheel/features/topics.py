"""Which topic of the event log a state reads, and the names of the topics that tidewheel makes for itself."""

from __future__ import annotations

from collections.abc import Sequence

from tidewheel.features.declaration import StateView
from tidewheel.features.schema import topic_of
from tidewheel.spec.project import ModelProject

_OWN, _BY = "tidewheel.", ".by."


def topic_read_by(state: StateView, project: ModelProject, n_partitions: int) -> str:
    """The source's own topic where all events of an entity are in one partition of it, else one keyed by the entity.

    That is so with one partition, or where the messages are keyed by it or by a part of its key.
    """
    columns = tuple(column for column, _ in state.keys)
    keyed_by = project.sources[state.source].key
    if n_partitions <= 1 or (keyed_by is not None and project.entities[keyed_by].key in columns):
        return state.topic
    return repartitioned_topic(state.topic, columns)


def repartitioned_topic(topic: str, columns: Sequence[str]) -> str:
    """The same messages, keyed by ``columns``."""
    return f"{_OWN}{topic}{_BY}{'-'.join(columns)}"


def source_topic(topic: str) -> str:
    """The topic that a repartitioned one was made from; any other is its own."""
    if topic.startswith(_OWN) and _BY in topic:
        return topic.removeprefix(_OWN).rpartition(_BY)[0]
    return topic


def dead_letter_topic(topic: str) -> str:
    """Where messages go that are no events."""
    return f"{topic}.dead"


def message_keys(project: ModelProject) -> dict[str, str]:
    """Topic to the column that its messages are keyed by, of those that are keyed."""
    return {
        topic_of(project, name): project.entities[source.key].key
        for name, source in project.sources.items()
        if source.key is not None
    }


def project_topics(project: ModelProject) -> list[str]:
    """All topics that the project's events come by."""
    return list(dict.fromkeys(topic_of(project, name) for name in project.sources))
