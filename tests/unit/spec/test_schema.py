"""The committed JSON Schema is the spec's, and says what the loader says."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from tidewheel.spec.project import ModelProject
from tidewheel.spec.schema import project_schema_text


def test_the_committed_schema_is_current(repository: Path):
    committed = (repository / "docs" / "reference" / "project.schema.json").read_text(encoding="utf-8")
    assert committed == project_schema_text(), "run 'make generate'"


def test_the_template_passes_the_schema_that_editors_use(repository: Path):
    text = (repository / "model_templates" / "card_fraud" / "project.yaml").read_text(encoding="utf-8")
    jsonschema.validate(YAML(typ="safe").load(text), json.loads(project_schema_text()))


@pytest.mark.parametrize("change", [{"nme": "x"}, {"tier": 9}, {"label": {"source": "labels"}}])
def test_the_schema_refuses_what_the_loader_refuses(repository: Path, change):
    text = (repository / "model_templates" / "card_fraud" / "project.yaml").read_text(encoding="utf-8")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(YAML(typ="safe").load(text) | change, json.loads(project_schema_text()))


def test_every_field_of_the_spec_says_its_unit_or_meaning_by_name():
    body = ModelProject.model_json_schema(by_alias=False)
    durations = [
        name
        for definition in body["$defs"].values()
        for name, field in definition.get("properties", {}).items()
        if field.get("pattern", "").endswith("(ms|s|m|h|d)$")
    ]
    assert durations
    assert all(name.endswith("_us") for name in durations)
