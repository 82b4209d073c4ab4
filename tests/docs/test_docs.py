"""The documentation names everything there is, and nothing that is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import tidewheel.features
from docs_reference import PROTO, cli_reference_text, protocol_texts, runbooks_index_text
from tidewheel.cli.main import COMMANDS
from tidewheel.features.load import parse_features
from tidewheel.findings import REASONS
from tidewheel.spec.load import load_project


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


def test_the_modules_of_the_grpc_protocol_are_current():
    assert {name: (PROTO / name).read_text() for name in protocol_texts()} == protocol_texts(), "run 'make generate'"


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


def python_blocks() -> list[Any]:
    folder = Path(__file__).parents[2] / "docs"
    pages = sorted([*folder.glob("how-to/*.md"), *folder.glob("concepts/*.md")])
    return [
        pytest.param(block, id=f"{page.stem} {number}")
        for page in pages
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
        if "tidewheel.features import" in block
    ]


@pytest.mark.parametrize("block", python_blocks())
def test_a_features_file_in_the_docs_is_valid(repository: Path, block: str):
    assert parse_features(block, "docs", load_project(repository / "model_templates" / "card_fraud")).names


def test_every_word_of_a_features_file_is_shown_in_a_how_to(repository: Path):
    text = "".join(page.read_text() for page in (repository / "docs").rglob("*.md"))
    assert [word for word in tidewheel.features.__all__ if f"{word}(" not in text and f"@{word}" not in text] == []
