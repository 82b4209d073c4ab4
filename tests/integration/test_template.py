"""A project made from a template passes its own tests, where its user would run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("template", ["card_fraud"])
def test_a_new_project_passes_its_own_tests(tmp_path: Path, template: str):
    made = [sys.executable, "-m", "tidewheel", "new", "my-model", "--template", template, "--into", str(tmp_path / "p")]
    subprocess.run(made, check=True, timeout=60, capture_output=True)
    tested = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    done = subprocess.run(tested, cwd=tmp_path / "p", timeout=120, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_generator_that_is_asked_for_nonsense_says_what_it_takes(repository: Path, tmp_path: Path):
    script = repository / "model_templates" / "card_fraud" / "generate.py"
    line = [sys.executable, str(script), "--out", str(tmp_path), "--days", "none"]
    done = subprocess.run(line, timeout=60, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "got 'none'; must be a whole number from 1 up" in done.stderr


def test_a_generators_days_do_not_depend_on_which_days_were_made_before(repository: Path, tmp_path: Path):
    script = repository / "model_templates" / "card_fraud" / "generate.py"

    def make(out: str, first: int, days: int) -> bytes:
        small = ("--customers", "60", "--terminals", "90", "--per-day")
        given = ("--out", str(tmp_path / out), "--first-day", str(first), "--days", str(days), *small)
        subprocess.run([sys.executable, str(script), *given], check=True, timeout=60, capture_output=True)
        return (tmp_path / out / "day-009" / "labels.parquet").read_bytes()

    assert make("all", 0, 10) == make("one", 9, 1)
