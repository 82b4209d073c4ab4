"""A project's runs in a real Airflow on this machine: triggered, refused twice, asked about, killed, and replayed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from servers.airflow import Airflow
from tidewheel.adapters.airflow_rest import AirflowRuns
from tidewheel.adapters.child_processes import belonging_to
from tidewheel.adapters.local_home import AIRFLOW_USER, LocalHome
from tidewheel.adapters.mlflow_registry import MlflowRegistry
from tidewheel.adapters.platform_state import read_platform
from tidewheel.errors import Conflict, NotFound
from tidewheel.journal.ledger import Journal
from waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

TRAINED, DUE = "2026-03-01", "2026-03-08"  # the cadence of a week is due at the second, the newest complete day
DECISION = "retrain-20260308T000000Z"
MONITOR, TRAIN = "card-fraud__monitor", "card-fraud__train"
CHANGES = (
    ("\nretrain:", "\nretrain:\n  every: 7d"),
    ("min_mature_labels: 4000, cooldown: 3d", "min_mature_labels: 100, cooldown: 1h"),
    ("min: 0.50", "min: 0.0"),
)


def tidewheel(*arguments: str, code: int = 0) -> dict[str, Any]:
    line = [sys.executable, "-m", "tidewheel", *arguments, "--output", "json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=330, check=False)
    assert done.returncode == code, done.stderr
    body: dict[str, Any] = json.loads(done.stdout) if code == 0 else {"error": done.stderr}
    return body


@pytest.fixture(scope="module")
def project(airflow_venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project of tier 1 whose first version serves, its schedules in Airflow."""
    folder = tmp_path_factory.mktemp("airflow-runs") / "card-fraud"
    tidewheel("new", "card-fraud", "--into", str(folder))
    text = (folder / "project.yaml").read_text()
    for old, new in CHANGES:
        assert old in text
        text = text.replace(old, new, 1)
    (folder / "project.yaml").write_text(text)
    size = ["--days", "63", "--customers", "150", "--terminals", "200"]
    subprocess.run([sys.executable, "generate.py", "--out", "data", *size], cwd=folder, check=True, capture_output=True)
    sources = [
        f"--source={name}={folder / 'data' / f'{name}.parquet'}" for name in ("transactions", "labels", "profiles")
    ]
    try:
        tidewheel("up", str(folder), "--airflow", "--no-wait")
        tidewheel("ingest", str(folder), *sources, "--wait")  # while Airflow starts
        tidewheel("up", str(folder), "--airflow")
        tidewheel("train", str(folder), "--as-of", TRAINED)
        tidewheel("promote", str(folder), "1", "--reason", "the first version")
        yield folder
    finally:
        tidewheel("down", str(folder))
    assert belonging_to(LocalHome.of(folder).root) == []


@pytest.fixture(scope="module")
def airflow(project: Path) -> Airflow:
    return Airflow(LocalHome.of(project))


def the_training(*words: str) -> psutil.Process | None:
    """The process that a task of Airflow runs, by the words of its command."""
    for one in psutil.process_iter(["cmdline"]):
        if {"tidewheel", *words} <= set(one.info["cmdline"] or []):
            return one
    return None


def test_without_an_airflow_up_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tidewheel("new", "other", "--into", str(tmp_path / "other"))
    monkeypatch.setenv("TIDEWHEEL_AIRFLOW", str(tmp_path))
    error = tidewheel("up", str(tmp_path / "other"), "--airflow", code=1)["error"]
    assert "no Airflow is installed there; run 'make airflow'" in " ".join(error.split())
    assert belonging_to(LocalHome.of(tmp_path / "other").root) == []


def test_airflow_knows_the_project_and_listens_on_loopback_alone(project: Path, airflow: Airflow):
    assert {one["dag_id"]: one["timetable_summary"] for one in airflow.get("/dags")["dags"]} == {
        MONITOR: None,
        TRAIN: None,
    }
    assert airflow.get("/importErrors")["total_entries"] == 0
    pids = {p for p in belonging_to(LocalHome.of(project).root) if "airflow" in " ".join(psutil.Process(p).cmdline())}
    heard = [one for one in psutil.net_connections("inet") if one.pid in pids and one.status == psutil.CONN_LISTEN]
    assert {one.laddr.ip.removeprefix("::ffff:") for one in heard} == {"127.0.0.1"}


def test_a_run_is_asked_for_once_and_its_conf_is_checked(project: Path, airflow: Airflow):
    assert airflow.trigger(MONITOR, "by-rest", as_of="2026-03-07") == 200
    assert airflow.trigger(MONITOR, "by-rest", as_of="2026-03-07") == 409
    assert airflow.trigger(MONITOR, "nonsense", as_of="yesterday") == 400
    home = LocalHome.of(project)
    runs = AirflowRuns(f"http://127.0.0.1:{airflow.port}", home.airflow_passwords, AIRFLOW_USER)
    assert runs.start(MONITOR, "by-rest", {"as_of": "2026-03-07"}) is False  # it is the run that was asked for
    with pytest.raises(Conflict, match="there already with another conf"):
        runs.start(MONITOR, "by-rest", {"as_of": "2026-03-06"})
    with pytest.raises(NotFound, match="no DAG other__monitor yet"):
        runs.start("other__monitor", "by-rest", {})
    runs.close()
    assert airflow.wait(MONITOR, "by-rest") == {"": "success", "monitor": "success", "retrain": "success"}


def test_event_time_starts_the_monitor_of_the_newest_complete_day(airflow: Airflow):
    done = airflow.wait(MONITOR, "monitor-20260308T000000Z")
    assert done == {"": "success", "monitor": "success", "retrain": "success"}


def answer(airflow: Airflow, run: str, option: str) -> None:
    """As a person does: look whether the answer was taken. Airflow loses one that comes too soon and asks again."""

    def taken() -> bool:
        state = airflow.states(TRAIN, run).get("ask")
        if state == "awaiting_input":
            airflow.answer(TRAIN, run, "ask", option, reason="the week is over")
        return state == "success"

    until(taken, limit_s=120)


def test_who_wants_to_be_asked_later_is_asked_again(airflow: Airflow):
    run = f"retrain__{DECISION}"
    until(lambda: airflow.states(TRAIN, run).get("ask") == "awaiting_input")
    (asked,) = airflow.get(f"/dags/{TRAIN}/dagRuns/{run}/hitlDetails")["hitl_details"]
    assert asked["subject"] == f"Retrain card-fraud as of {DUE}T00:00:00Z?"
    answer(airflow, run, "Ask again later")
    assert airflow.wait(TRAIN, run) == {
        "": "success", "policy": "success", "ask": "success", "ask_again": "success",
        "approve": "skipped", "refuse": "skipped", "train": "skipped",
    }  # fmt: skip


def test_an_approved_training_that_is_killed_is_taken_up_again_and_ends_in_one_version(project: Path, airflow: Airflow):
    run = f"retrain__{DECISION}__question-2"
    answer(airflow, run, "Approve")
    until(lambda: the_training("train", DECISION) is not None)
    child = the_training("train", DECISION)
    assert child is not None
    child.send_signal(signal.SIGKILL)
    states = airflow.wait(TRAIN, run, limit_s=180)
    assert states == {
        "": "success", "policy": "success", "ask": "success", "approve": "success", "train": "success",
        "refuse": "skipped", "ask_again": "skipped",
    }  # fmt: skip
    assert airflow.task(TRAIN, run, "train")["try_number"] == 2
    home = LocalHome.of(project)
    made = MlflowRegistry(read_platform(home).mlflow_uri).versions("card-fraud")
    assert [one.number for one in made] == ["1", "2"]
    with Journal(home.journal_url) as journal:
        record = journal.decision(DECISION, project="card-fraud")
        (approval,) = [e for e in journal.entries("card-fraud") if e.key == f"{DECISION}:approved"]
    assert (record.state, (record.result or {})["version"]) == ("executed", "2")
    assert (approval.actor, approval.reason) == ("admin", "the week is over (in Airflow)")


def test_a_monitor_that_runs_again_starts_no_second_training(airflow: Airflow):
    assert airflow.trigger(MONITOR, "again", as_of=DUE) == 200
    assert airflow.wait(MONITOR, "again") == {"": "success", "monitor": "success", "retrain": "skipped"}


def test_the_dags_run_in_a_test_without_a_server_too(
    project: Path, inside: Callable[..., dict[str, Any]], tmp_path: Path
):
    settings = {"TIDEWHEEL_TASKS": "processes", "TIDEWHEEL_PYTHON": sys.executable}
    conf = {"as_of": "2026-03-06"}
    told = inside(tmp_path, project, "run", json.dumps([[MONITOR, conf], [TRAIN, conf]]), **settings)
    assert told[MONITOR] == {"": "success", "monitor": "success", "retrain": "success"}
    assert told[TRAIN][""] == "success"
    assert {state for task, state in told[TRAIN].items() if task} == {"skipped"}  # nothing asks, so nobody is asked
    with Journal(LocalHome.of(project).journal_url) as journal:
        assert journal.decision("retrain-20260306T000000Z", project="card-fraud").decision.action != "retrain"


def test_what_a_killed_airflow_leaves_does_not_run_beside_the_next(project: Path):
    home = LocalHome.of(project)
    killed = read_platform(home).processes["airflow"]
    assert killed.pid is not None
    components = {child.pid for child in psutil.Process(killed.pid).children()}
    assert len(components) == 3
    psutil.Process(killed.pid).kill()
    until(lambda: read_platform(home).processes["airflow"].restarts > killed.restarts)
    until(lambda: not [pid for pid in components if psutil.pid_exists(pid)], limit_s=120)
