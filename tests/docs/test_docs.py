"""The documentation names everything there is, and nothing that is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs_reference import cli_reference_text, runbooks_index_text
from tidewheel.cli.main import COMMANDS
from tidewheel.findings import REASONS


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_a_reason_has_a_runbook_page(repository: Path, reason: str):
    page = repository / "docs" / "runbooks" / f"{reason}.md"
    assert page.is_file(), f"write docs/runbooks/{reason}.md: what it means, look here, do this"
    assert page.read_text().startswith(f"# {reason}\n")


def test_every_runbook_page_belongs_to_a_reason(repository: Path):
    pages = {page.stem for page in (repository / "docs" / "runbooks").glob("*.md")} - {"README"}
    assert pages == set(REASONS)


def test_the_index_of_runbooks_is_current(repository: Path):
    assert (repository / "docs" / "runbooks" / "README.md").read_text() == runbooks_index_text(), "run 'make generate'"


def test_the_command_reference_is_current(repository: Path):
    assert (repository / "docs" / "reference" / "cli.md").read_text() == cli_reference_text(), "run 'make generate'"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_shows_an_example(name: str):
    section = cli_reference_text().split(f"\n## tidewheel {name}\n")[1].split("\n## ")[0]
    assert re.search(r"Examples?:\n", section), f"'tidewheel {name} --help' needs an example"


def test_links_between_pages_lead_somewhere(repository: Path):
    pages = [*repository.glob("*.md"), *(repository / "docs").rglob("*.md"), *repository.glob("model_templates/*/*.md")]
    broken = [
        f"{page.relative_to(repository)}: {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_files_that_the_map_names_exist(repository: Path):
    named = re.findall(r"`((?:platform|tests|charts|docs|model_templates|dags|infra)/[^`*<>{} ]+)`",
                       (repository / "ARCHITECTURE.md").read_text())  # fmt: skip
    assert named
    assert [name for name in named if not (repository / name).exists()] == []
