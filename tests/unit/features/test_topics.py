"""Which topic a state reads: the source's own wherever all events of an entity are in one partition."""

from __future__ import annotations

import pytest

from tidewheel.features.json_events import decoders_of
from tidewheel.features.topics import message_keys, project_topics, source_topic, topic_read_by
from tidewheel.spec.load import parse_project
from unit.features.samples import SPEC, sample_features, sample_project

KEYED = SPEC.replace("topic: payments,", "topic: payments, key: card,")


@pytest.mark.parametrize(
    ("spec", "entity", "n_partitions", "topic"),
    [
        pytest.param(SPEC, "card", 1, "payments", id="one partition holds everything"),
        pytest.param(SPEC, "card", 2, "tidewheel.payments.by.card", id="messages keyed by nothing"),
        pytest.param(KEYED, "card", 2, "payments", id="messages keyed by the entity"),
        pytest.param(KEYED, "shop", 2, "tidewheel.payments.by.shop", id="messages keyed by another entity"),
        pytest.param(KEYED, "shop", 1, "payments", id="another entity, one partition"),
    ],
)
def test_a_state_reads_a_topic_that_keeps_its_entities_together(spec, entity, n_partitions, topic):
    project = parse_project(spec, "project.yaml")
    states = sample_features(project).states
    state = next(one for one in states if one.source == "payments" and one.keys[0][0] == entity)
    assert topic_read_by(state, project, n_partitions) == topic
    assert source_topic(topic) == "payments"


def test_topics_and_their_keys_are_those_of_the_sources():
    assert message_keys(parse_project(KEYED, "project.yaml")) == {"payments": "card"}
    assert project_topics(sample_project()) == ["payments", "labels", "profiles"]


def test_columns_of_an_older_version_are_still_decoded():
    older = parse_project(SPEC.replace("items: int32", "items: int32, weight: float64"), "project.yaml")
    project = sample_project()
    decoders = decoders_of([(project, sample_features(project)), (older, sample_features(older))])
    body = b'{"card":"a","shop":1,"at":"2018-04-01T12:00:00Z","payment":"p","weight":2}'
    got = decoders["payments"].decode([body], [2**53])
    assert got.events.column("weight").to_pylist() == [2.0]
