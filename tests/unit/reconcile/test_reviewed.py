"""A plan is data that a person reviews; it is carried out only where it still holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tidewheel.errors import Conflict, InputError
from tidewheel.reconcile.reviewed import apply_plan, check_still_so, read_plan_file

OLD = {"project.yaml": "name: tiny\ntier: 2\n", "features.py": "a = 1\n"}
NEW = {"project.yaml": "name: tiny\ntier: 1\n", "features.py": "a = 1\n"}
PLAN = apply_plan("tiny", "local", "a" * 64, OLD, "b" * 64, NEW)


def test_it_shows_what_changes_line_by_line_and_what_follows() -> None:
    assert PLAN.changed_files == ("project.yaml",)
    assert "-tier: 2" in PLAN.diff
    assert "+tier: 1" in PLAN.diff
    assert any("limits, cadences" in sentence for sentence in PLAN.consequences)


def test_a_plan_that_changes_nothing_says_so() -> None:
    same = apply_plan("tiny", "local", "a" * 64, OLD, "a" * 64, OLD)
    assert (same.changes_something, same.diff) == (False, "")
    assert same.consequences == ("nothing changes: this code is in force",)


def test_it_reads_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(PLAN.to_json())
    assert read_plan_file(path) == PLAN
    check_still_so(PLAN, read_plan_file(path))


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"project": "tiny"}', '{"changed_files": 1}'])
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(InputError, match="no plan that"):
        read_plan_file(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"before": "c" * 64}, "code in force"), ({"after": "c" * 64}, "folder's code"), ({"target": "prod"}, "target")],
)
def test_it_is_not_carried_out_where_something_moved(change: dict[str, str], said: str) -> None:
    with pytest.raises(Conflict, match=said):
        check_still_so(PLAN, replace(PLAN, **change))  # type: ignore[arg-type]
