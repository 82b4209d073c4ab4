"""Airflow has an environment of its own: what needs it runs in that one's Python."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tidewheel.apps.supervisor.airflow import airflow_environment
from tidewheel.errors import NotFound

INSIDE = Path(__file__).with_name("inside.py")


@pytest.fixture(scope="session")
def airflow_venv() -> Path:
    try:
        return airflow_environment()
    except NotFound as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def inside(airflow_venv: Path) -> Callable[..., dict[str, Any]]:
    """Runs tests/airflow/inside.py: ``inside(home, projects, "tell", TIDEWHEEL_TASKS="pods")``."""

    def run(home: Path, projects: Path, *arguments: str, **variables: str) -> dict[str, Any]:
        bundle = {
            "name": "tidewheel",
            "classpath": "tidewheel.pipelines.bundle.ProjectsBundle",
            "kwargs": {"dag_file": str(INSIDE.parents[2] / "dags" / "model_projects.py")},
        }
        environment = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home / "bundles"),
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
            "TIDEWHEEL_PROJECTS": str(projects),
            **variables,
        }
        line = [str(airflow_venv / "bin" / "python"), str(INSIDE), *arguments]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stderr[-5000:]
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    return run
