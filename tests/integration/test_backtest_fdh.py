"""The published figures of the Fraud Detection Handbook, reached with features of our own engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.data]

PROTOCOL = ["--train-days", "7", "--delay-days", "7", "--test-days", "7", "--every-days", "7"]


def backtest(repository: Path, real_data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    file = real_data / "fdh" / "fdh_raw_dev_2018-04-01_2018-07-24.parquet"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    command = [sys.executable, "-m", "tidewheel", "backtest", repository / "tests" / "data" / "fdh_project"]
    return subprocess.run(
        [*command, "--source", f"transactions={file}", *PROTOCOL, *arguments, "--output", "json"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_four_weeks_reach_the_published_figures(repository: Path, real_data: Path) -> None:
    done = backtest(repository, real_data, "--start", "2018-06-04", "--folds", "4")
    assert done.returncode == 0, done.stderr
    body: dict[str, Any] = json.loads(done.stdout)
    assert body["mean"]["average_precision"] >= 0.69  # published .694
    assert body["mean"]["card_precision_at_100"] >= 0.31  # published .304
    assert body["mean"]["auc_roc"] >= 0.87  # published .871
    assert [fold["test_start"] for fold in body["folds"]] == [
        "2018-06-18T00:00:00Z",
        "2018-06-25T00:00:00Z",
        "2018-07-02T00:00:00Z",
        "2018-07-09T00:00:00Z",
    ]
    for fold in body["folds"]:
        estimate = fold["metrics"]["average_precision"]
        assert estimate["low"] < estimate["value"] < estimate["high"]
        assert fold["n_frauds"] > 300


def test_a_fold_beyond_the_data_is_an_error_that_names_it(repository: Path, real_data: Path) -> None:
    done = backtest(repository, real_data, "--start", "2018-07-04", "--folds", "2")
    assert done.returncode == 1
    assert "fold 2 of 2 (train 2018-07-11T00:00:00Z to 2018-07-18T00:00:00Z, test 2018-07-25T00:00:00Z" in done.stderr
    assert "incomplete, no labelled row in test on 7 day(s), the first 2018-07-25" in done.stderr
