"""A new project starts from a template, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tidewheel.cli.main import cli
from tidewheel.errors import InputError, NotFound
from tidewheel.spec.load import load_project


def invoke(*arguments: str) -> dict[str, object]:
    done = CliRunner().invoke(cli, ["new", "--output", "json", *arguments], catch_exceptions=False)
    body: dict[str, object] = json.loads(done.stdout)
    return body


def test_a_new_project_has_its_name_and_the_schema_for_editors(tmp_path: Path):
    invoke("my-fraud", "--into", str(tmp_path / "p"))
    assert load_project(tmp_path / "p").name == "my-fraud"
    assert (tmp_path / "p" / ".tidewheel" / "project.schema.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"p"}


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(InputError, match="exists and is not empty"):
        invoke("my-fraud", "--into", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_unknown_template_names_those_there_are(tmp_path: Path):
    with pytest.raises(NotFound, match="nope: no such template; there are card_fraud"):
        invoke("my-fraud", "--template", "nope", "--into", str(tmp_path / "p"))


@pytest.mark.parametrize("name", ["Card", "a_b", "-x", "x" * 41, "../up"])
def test_a_name_that_cannot_be_a_service_is_refused(tmp_path: Path, name: str):
    with pytest.raises(InputError, match="not a project name"):
        invoke("--into", str(tmp_path / "p"), "--", name)
