"""A client of a running Airflow, for tests: triggers runs, waits for them, answers questions."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx

from tidewheel.adapters.local_home import AIRFLOW_USER, LocalHome
from tidewheel.adapters.platform_state import read_platform
from waiting import until


class Airflow:
    """The Airflow that `tidewheel up --airflow` started for a home."""

    def __init__(self, home: LocalHome) -> None:
        self.port = read_platform(home).processes["airflow"].port
        base = f"http://127.0.0.1:{self.port}"
        self._http = httpx.Client(base_url=f"{base}/api/v2", timeout=20)
        password = json.loads(home.airflow_passwords.read_text())[AIRFLOW_USER]
        told = httpx.post(f"{base}/auth/token", json={"username": AIRFLOW_USER, "password": password}, timeout=20)
        self._http.headers["Authorization"] = f"Bearer {told.json()['access_token']}"

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        body: dict[str, Any] = self._http.get(path, params=params).raise_for_status().json()
        return body

    def trigger(self, dag: str, run: str, **conf: Any) -> int:
        """The HTTP status; the run looks at ``conf``."""
        body = {"logical_date": None, "dag_run_id": run, "conf": conf}
        return self._http.post(f"/dags/{dag}/dagRuns", json=body).status_code

    def states(self, dag: str, run: str) -> dict[str, str]:
        """Task to state, and the run's own under ''; empty where there is no such run yet."""
        path = f"/dags/{dag}/dagRuns/{quote(run, safe='')}"
        answer = self._http.get(path)
        if answer.status_code == 404:
            return {}
        tasks = self.get(f"{path}/taskInstances")["task_instances"]
        return {"": answer.json()["state"], **{one["task_id"]: str(one["state"]) for one in tasks}}

    def wait(self, dag: str, run: str, limit_s: float = 120) -> dict[str, str]:
        """The states once the run has ended."""
        until(lambda: self.states(dag, run).get("") in ("success", "failed"), limit_s)
        return self.states(dag, run)

    def task(self, dag: str, run: str, task: str) -> dict[str, Any]:
        return self.get(f"/dags/{dag}/dagRuns/{quote(run, safe='')}/taskInstances/{task}")

    def answer(self, dag: str, run: str, task: str, option: str, **fields: str) -> int:
        path = f"/dags/{dag}/dagRuns/{quote(run, safe='')}/taskInstances/{task}/-1/hitlDetails"
        body = {"chosen_options": [option], "params_input": fields}
        return self._http.patch(path, json=body).status_code
