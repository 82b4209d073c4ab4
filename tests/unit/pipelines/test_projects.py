"""Which files are projects, in a folder of them and in a project's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tidewheel.errors import NotFound, SpecError
from tidewheel.pipelines.projects import project_file, project_files, read_project


@pytest.fixture
def template(repository: Path) -> Path:
    return repository / "model_templates" / "card_fraud"


def test_a_folder_holds_one_file_per_project(template: Path, tmp_path: Path):
    for name in ("b.yaml", "a.yaml", "notes.md"):
        shutil.copy(template / "project.yaml", tmp_path / name)
    assert project_files(tmp_path) == {"a": tmp_path / "a.yaml", "b": tmp_path / "b.yaml"}
    with pytest.raises(NotFound, match="was the project removed"):
        project_file(tmp_path, "c")


def test_a_projects_folder_holds_that_project_alone(template: Path, tmp_path: Path):
    shutil.copy(template / "project.yaml", tmp_path / "project.yaml")
    (tmp_path / "other.yaml").write_text("whatever: 1")
    assert project_files(tmp_path) == {"project": tmp_path / "project.yaml"}
    assert read_project(project_file(tmp_path, "project")).name == "card-fraud"


def test_a_file_must_be_called_as_its_project(template: Path, tmp_path: Path):
    shutil.copy(template / "project.yaml", tmp_path / "card-fraud.yaml")
    assert read_project(tmp_path / "card-fraud.yaml").name == "card-fraud"
    shutil.copy(template / "project.yaml", tmp_path / "churn.yaml")
    with pytest.raises(SpecError) as error:
        read_project(tmp_path / "churn.yaml")
    (problem,) = error.value.problems
    assert (problem.line, problem.message) == (2, "name: must be that of the file, 'churn' (got 'card-fraud')")
