"""What stock Feast clients are told: all states that somebody reads, and nothing that would run as code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tidewheel.errors import ContractViolation
from tidewheel.features import feast_definitions as module
from tidewheel.features.feast_definitions import feast_definitions
from tidewheel.features.lake import source_paths
from tidewheel.features.load import parse_features
from unit.features.samples import FEATURES, sample_features, sample_project

LAKE = source_paths(Path("/lake"), sample_project())


def told(*deployed: Any) -> dict[str, Any]:
    return feast_definitions(sample_project(), sample_features(), deployed, LAKE)


def test_there_is_one_view_per_state_and_one_service_of_all():
    features, made = sample_features(), told()
    assert [view["name"] for view in made["views"]] == [state.feast_view for state in features.states]
    assert made["service"] == {"name": "sample", "views": [state.feast_view for state in features.states]}
    assert made["entities"] == [{"name": "card", "type": "string"}, {"name": "shop", "type": "int64"}]


def test_a_view_says_what_it_is():
    card = told()["views"][0]
    (state, *_) = sample_features().states
    assert card["features"] == [*map(list, state.published), ["state", "bytes"]]
    assert card["keys"] == [["card", "string"]]
    assert card["tags"] == {
        "managed_by": "tidewheel", "view": "card", "kind": "windowed", "state_id": state.state_id, "freshness_s": "5",
    }  # fmt: skip
    assert card["ttl_s"] * 1_000_000 >= state.retention_us
    assert card["owner"] == "tests"


def test_functions_of_the_request_are_not_told():
    assert "is_dear" not in str(told())


def test_states_that_a_deployed_version_reads_stay_and_are_not_in_the_service():
    older = parse_features(FEATURES.replace('"1h"', '"2h"').replace("usual_1h", "usual_2h"), "f.py", sample_project())
    made, now = told(older, sample_features()), told()
    names = {state.feast_view for state in (*older.states, *sample_features().states)}
    assert {view["name"] for view in made["views"]} == names
    assert made["service"] == now["service"]
    assert len(made["views"]) > len(now["views"])


def test_a_project_without_its_hyphens():
    project = sample_project().model_copy(update={"name": "sample-two"})
    made = feast_definitions(project, sample_features(), (), LAKE)
    assert (made["project"], made["service"]["name"]) == ("sample_two", "sample_two")


def test_a_problem_of_the_layout_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "layout_problems", lambda states: [f"{len(list(states))} states", "and more"])
    with pytest.raises(ContractViolation, match=r"^\d states\nand more$"):
        told()
