"""The benchmarks run and say what they must; their figures are never tested."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench_run import FIELDS, lines_of

NUMBERS_OF_LINES = {"scoring": 2, "training_set": 13, "stream": 4}


def test_each_benchmark_runs_and_gives_its_lines(repository: Path) -> None:
    found = lines_of(repository, *NUMBERS_OF_LINES)
    assert {name: len(lines) for name, lines in found.items()} == NUMBERS_OF_LINES
    assert all(line.keys() == FIELDS for lines in found.values() for line in lines)


def test_a_ratio_is_how_many_times_better_ours_is(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(repository))
    from benchmarks.lines import Line

    rate = Line("rate", "peer", 70.0, 100.0, "1/s", 1, higher_is_better=True, reach=0.7)
    time = Line("time", "peer", 2.0, 10.0, "s", 1, reach=10.0)
    assert [(line.ratio, line.fields()["reached"]) for line in (rate, time)] == [(0.7, True), (5.0, False)]
    assert Line("nothing", "peer", 0.0, 10.0, "s", 1).fields()["ratio"] is None


def test_a_wrong_name_is_refused_with_those_that_exist(repository: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "speed"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    named = ("drift", "scoring", "serving", "serving_peers", "overload", "lifecycle", "training_set", "plain_features")
    assert ", ".join(map(repr, named)) in done.stderr
