"""Applying a project: code in the home by digest, the ledger as the fact, safe to run again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memory.tiny import OTHER_FEATURES_PY, write_project
from tidewheel.bundle.manifest import verify
from tidewheel.clock import FixedClock
from tidewheel.errors import SpecError
from tidewheel.journal.ledger import Journal
from tidewheel.reconcile.applied import CODE_FILES, Applied, AppliedChange, apply_project, read_applied


def journal(home: Path) -> Journal:
    return Journal(f"sqlite:///{home / 'journal.db'}")


def test_the_first_apply_puts_the_code_in_force(tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = apply_project(write_project(tmp_path / "p"), home, clock=FixedClock(5))
    assert done == AppliedChange("tiny", None, done.now, CODE_FILES)
    verify(home / "projects" / done.now, done.now)
    assert read_applied(journal(home), "tiny") == Applied("tiny", done.now, 5)
    pointer = json.loads((home / "applied" / "tiny.json").read_bytes())
    assert pointer == {"digest": done.now, "name": "tiny", "at_us": 5}


def test_applying_again_changes_nothing_and_repairs_what_is_gone(tmp_path: Path) -> None:
    home, project = tmp_path / "home", write_project(tmp_path / "p")
    first = apply_project(project, home, clock=FixedClock(5))
    (home / "applied" / "tiny.json").unlink()
    (home / "projects" / first.now / "features.py").write_text("damaged")
    again = apply_project(project, home, clock=FixedClock(9))
    assert again == AppliedChange("tiny", first.now, first.now, ())
    verify(home / "projects" / first.now, first.now)
    assert json.loads((home / "applied" / "tiny.json").read_bytes())["at_us"] == 5
    assert len(journal(home).entries("tiny", kind="applied")) == 1


def test_a_change_says_which_files_differ(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = apply_project(write_project(tmp_path / "p"), home)
    second = apply_project(write_project(tmp_path / "p", features=OTHER_FEATURES_PY), home)
    assert second == AppliedChange("tiny", first.now, second.now, ("features.py",))
    assert first.now != second.now


def test_a_wrong_project_leaves_the_old_one_in_force(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = apply_project(write_project(tmp_path / "p"), home)
    with pytest.raises(SpecError):
        apply_project(write_project(tmp_path / "p", features="nonsense("), home)
    applied = read_applied(journal(home), "tiny")
    assert applied is not None
    assert applied.digest == first.now
    assert [path.name for path in (home / "projects").iterdir()] == [first.now]
