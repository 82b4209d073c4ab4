"""The loop closes in a cluster: Airflow's DAGs train, monitor and retrain in pods; a version serves; prices rise; the
decision is recorded, with its report; the next version serves.

The whole chart in its small preset. The tests go on from each other, in order.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from servers.card_world import CUSTOMERS, DAYS, TERMINALS, feed, write_cards
from servers.kube import Installation, Kube, eventually, install
from waiting import until

NAME = "loop"
RUN_LIMIT_S = 420
pytestmark = pytest.mark.timeout(600)


@dataclass
class Airflow:
    """Airflow's REST API, as a person or a service calls it."""

    url: str
    password: str
    token: str = ""

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        if not self.token:
            told = httpx.post(
                f"{self.url}/auth/token", json={"username": "admin", "password": self.password}, timeout=20
            )
            told.raise_for_status()
            self.token = told.json()["access_token"]
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.request(method, f"{self.url}/api/v2{path}", headers=headers, timeout=30, **options)

    def dags(self) -> set[str]:
        return {one["dag_id"] for one in self.call("GET", "/dags").json()["dags"]}

    def trigger(self, dag: str, run: str, as_of: str) -> int:
        body = {"logical_date": None, "dag_run_id": run, "conf": {"as_of": as_of}}
        return self.call("POST", f"/dags/{dag}/dagRuns", json=body).status_code

    def runs(self, dag: str) -> dict[str, str]:
        return {one["dag_run_id"]: one["state"] for one in self.call("GET", f"/dags/{dag}/dagRuns").json()["dag_runs"]}


@dataclass
class Loop:
    made: Installation
    airflow: Airflow
    project: Path
    took: dict[str, float] = field(default_factory=dict)

    def ran(self, dag: str, run: str) -> None:
        """Until a run has ended well."""
        began = time.monotonic()

        def ended() -> bool:
            state = self.airflow.runs(dag).get(run, "")
            assert state != "failed", self.failure()
            return state == "success"

        until(ended, limit_s=RUN_LIMIT_S)
        self.took[f"{dag} {run}"] = time.monotonic() - began

    def failure(self) -> str:
        return self.made.kubectl(
            "logs", "deployment/tidewheel-airflow-scheduler", "-c", "scheduler", "--tail=60", check=False
        )

    def serves(self, version: str) -> bool:
        status = self.made.status(NAME)
        told = self.made.generations(NAME)
        return status.get("version") == version and bool(told) and set(told) == {status["generation"]}


@pytest.fixture(scope="module")
def loop(kube: Kube, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    if not os.environ.get("TIDEWHEEL_TEST_IMAGES"):
        pytest.skip('no images: TIDEWHEEL_TEST_IMAGES is not set; run: eval "$(infra/test-cluster)"')
    if not os.environ.get("TIDEWHEEL_LOOP"):
        pytest.skip("the whole loop takes a quarter of an hour; set TIDEWHEEL_LOOP=1")
    folder = tmp_path_factory.mktemp("loop")
    with install(kube, repository, folder, airflow=True) as made:
        password = json.loads(made.secret("tidewheel-airflow", "passwords.json"))["admin"]
        airflow = Airflow(f"http://{made.address('tidewheel-airflow')}:8080", password)
        # One replica is enough here, and drift asks for a retrain at its first sight.
        project = write_cards(folder, NAME, replicas={"min": 1, "max": 1}, retrain={"runs": 1, "of": 1})
        loop = Loop(made, airflow, project)
        yield loop
        for what, seconds in loop.took.items():
            print(f"{what}: {seconds:.0f} s")


def test_a_project_that_is_applied_gets_its_dags(loop: Loop) -> None:
    loop.made.tidewheel("apply", str(loop.project))
    wanted = {f"{NAME}__monitor", f"{NAME}__train"}
    eventually(lambda: wanted <= loop.airflow.dags(), 240)


def test_a_version_serves_and_a_dag_asks_the_policy_in_a_pod_once(loop: Loop) -> None:
    feed(loop.made, loop.project, NAME)
    dag = f"{NAME}__train"
    version = loop.made.job(NAME, "train", "--as-of", "2026-02-17")["version"]
    eventually(lambda: loop.serves(version), 120)
    assert loop.airflow.trigger(dag, "by-hand", "2026-02-18") == 200
    assert loop.airflow.trigger(dag, "by-hand", "2026-02-18") == 409, "the same run is asked for once"
    loop.ran(dag, "by-hand")


def test_drift_is_found_by_a_dag_reported_and_answered_by_a_retrain(loop: Loop) -> None:
    made = loop.made
    # A week in which prices rose by half.
    made.inside("python", "/tmp/world/generate.py", "--out", "/tmp/world/later", "--first-day", str(DAYS),
                "--days", "8", "--customers", str(CUSTOMERS), "--terminals", str(TERMINALS),
                "--amount-factor", "1.8", "--amount-from", str(DAYS))  # fmt: skip
    sources = [
        f"--source={source}=/tmp/world/later/{source}.parquet" for source in ("transactions", "labels", "profiles")
    ]
    url = f"http://{NAME}-predictor"
    made.inside("tidewheel", "predict", "/tmp/world", "--rows", "/tmp/world/later/requests.parquet", "--url", url,
                "--rate", "300", "--output", "json")  # fmt: skip
    made.inside("tidewheel", "ingest", "/tmp/world", *sources, "--wait", "--output", "json", timeout_s=300)
    assert loop.airflow.trigger(f"{NAME}__monitor", "the-week-after", "2026-02-26") == 200
    loop.ran(f"{NAME}__monitor", "the-week-after")
    found = made.inside("python", "-c", _FINDINGS)
    assert "FeatureDrift" in found, found
    reports = made.inside("python", "-c", _REPORTS)
    assert "report.html" in reports, reports
    eventually(lambda: any(run.startswith("retrain") for run in loop.airflow.runs(f"{NAME}__train")), 120)
    run = next(run for run in loop.airflow.runs(f"{NAME}__train") if run.startswith("retrain"))
    loop.ran(f"{NAME}__train", run)
    decisions = made.inside("python", "-c", _DECISIONS)
    assert "retrain" in decisions, decisions


_JOURNAL = (
    "from pathlib import Path\n"
    "from tidewheel.adapters.local_home import LocalHome\n"
    "from tidewheel.journal.ledger import Journal\n"
    "journal = Journal(LocalHome.of(Path('.')).journal_url)\n"
)
_FINDINGS = _JOURNAL + f"print([one.finding.reason for one in journal.findings('{NAME}')])"
_DECISIONS = _JOURNAL + f"print([(one.kind, one.state, one.decision.action) for one in journal.decisions('{NAME}')])"
_REPORTS = (
    "from tidewheel.adapters.object_store import open_object_store\n"
    f"print([one.key for one in open_object_store().list('reports/{NAME}')])"
)
