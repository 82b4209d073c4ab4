"""`tidewheel loadtest` against a real model server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memory.tiny import T0_US, write_project
from servers.model_server import Rig, bundles, rig, wait_for

__all__ = ["bundles", "rig"]  # fixtures
pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def loadtest(*arguments: object, code: int = 0) -> tuple[dict[str, Any], str]:
    """What it prints as JSON, and stderr."""
    line = [sys.executable, "-m", "tidewheel", "loadtest", *map(str, arguments), "--output", "json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout or "{}"), done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "tiny")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    table = pa.table(
        {
            "customer_id": [1, 2, 3],
            "paid_at": pa.array([T0_US, T0_US + 1, T0_US + 2], pa.timestamp("us", tz="UTC")),
            "payment_id": [11, 12, 13],
            "amount": [1.0, 2.0, 3.0],
        }
    )
    pq.write_table(table, path)
    return path


def test_each_rate_gets_figures_and_a_picture(rig: Rig, project: Path, rows: Path, tmp_path: Path) -> None:
    rig.deploy({"1": 1.0})
    rig.start()
    plot = tmp_path / "latency.svg"
    told, _ = loadtest(
        project, "--rows", rows, "--url", rig.url, "--rate", 50, "--rate", 150, "--for", "1s", "--plot", plot
    )
    assert [one["offered_rps"] for one in told["rates"]] == [50, 150]
    assert [one["n_requests"] for one in told["rates"]] == [50, 150]
    assert all(one["n_failed"] == 0 and one["p50_ms"] <= one["p99_ms"] <= one["max_ms"] for one in told["rates"])
    assert "<svg" in plot.read_text()[:2000]
    assert not told["searched"]


def test_its_requests_are_logged_as_tests_so_that_nobody_counts_them(rig: Rig, project: Path, rows: Path) -> None:
    rig.deploy({"1": 1.0})
    rig.start()
    loadtest(project, "--rows", rows, "--url", rig.url, "--rate", 20, "--for", "1s")
    rig.ask(7)
    logged = wait_for("the log", lambda: rows_ if len(rows_ := rig.logged()) >= 21 else None)
    assert sorted(row["role"] for row in logged) == ["champion"] + ["test"] * 20


def test_the_requests_of_the_log_are_made_again(rig: Rig, project: Path) -> None:
    rig.deploy({"1": 1.0})
    rig.start()
    for customer in (3, 4, 5):
        rig.ask(customer, amount=1.0)
    wait_for("the log", lambda: len(rig.logged()) == 3)
    home = project / ".tidewheel" / "lake" / "predictions"
    home.mkdir(parents=True)
    (home / "tiny").symlink_to(rig.home.lake / "predictions" / "tiny")
    told, _ = loadtest(project, "--url", rig.url, "--rate", 20, "--for", "1s")
    assert told["rates"][0]["n_ok"] == 20
    logged = wait_for("the log", lambda: rows_ if len(rows_ := rig.logged()) == 23 else None)
    assert {row["request.customer_id"] for row in logged} == {3, 4, 5}


def test_a_rate_that_is_not_carried_is_an_error_with_the_figures(project: Path, rows: Path) -> None:
    told, error = loadtest(project, "--rows", rows, "--url", "http://127.0.0.1:9", "--rate", 20, "--for", "1s", code=1)
    assert told["rates"][0]["n_failed"] == 20
    assert "http://127.0.0.1:9: 20 requests/s were not carried (connect: " in error


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["--for", "soon"], "must be a number with a unit", 2),
        (["--plot", "latency.txt"], "latency.txt: must end in .svg, .png, .pdf", 1),
        (["--rate", "0"], "0", 2),
        (["--url", "http://127.0.0.1:9"], "no requests yet; give a file of requests by --rows", 1),
    ],
)
def test_a_wrong_argument_says_what_is_allowed(project: Path, arguments: list[str], says: str, code: int) -> None:
    _, error = loadtest(project, *arguments, code=code)
    assert says in error
