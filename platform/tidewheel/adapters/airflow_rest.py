"""Runs of Airflow's DAGs, by its REST API: asked for once under an id, however often one asks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from tidewheel.errors import Conflict, InputError, NotFound, Unavailable

TIMEOUT_S = 10.0
OK, UNAUTHORIZED, NOT_FOUND, CONFLICT = 200, 401, 404, 409


class AirflowRuns:
    """``passwords``: the file of Airflow's simple login, user to password; read when a token is needed."""

    def __init__(self, url: str, passwords: Path, user: str) -> None:
        self._url, self._passwords, self._user = url, passwords, user
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False)

    def start(self, dag: str, run: str, conf: Mapping[str, Any]) -> bool:
        """True where the run is new, False where one of that id with the same conf was there.

        Raises NotFound where Airflow has not read the DAG yet, Conflict for another run under the id, Unavailable.
        """
        body = {"logical_date": None, "dag_run_id": run, "conf": dict(conf)}
        answer = self._ask("POST", f"/api/v2/dags/{dag}/dagRuns", body)
        if answer.status_code == CONFLICT:
            known = self._ask("GET", f"/api/v2/dags/{dag}/dagRuns/{run}")
            if known.status_code != OK or known.json()["conf"] != dict(conf):
                raise Conflict(f"{self._url}: run {run!r} of {dag} is there already with another conf")
            return False
        if answer.status_code == NOT_FOUND:
            raise NotFound(f"{self._url}: no DAG {dag} yet; import errors are on its pages")
        if answer.status_code != OK:
            raise InputError(f"{self._url}: run {run!r} of {dag} was refused: {answer.status_code} {answer.text[:500]}")
        return True

    def close(self) -> None:
        self._http.close()

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        try:
            answer = self._http.request(method, path, json=body)
            if answer.status_code == UNAUTHORIZED:  # no token yet, or it ran out
                self._log_in()
                answer = self._http.request(method, path, json=body)
        except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
            raise Unavailable(f"{self._url}: Airflow does not answer ({type(error).__name__}: {error})") from error
        if answer.status_code >= 500:
            raise Unavailable(f"{self._url}: Airflow answers {answer.status_code}")
        return answer

    def _log_in(self) -> None:
        told = {"username": self._user, "password": json.loads(self._passwords.read_text())[self._user]}
        answer = self._http.post("/auth/token", json=told).raise_for_status()
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
