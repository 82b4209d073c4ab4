"""Airflow on one machine, in an environment of its own; its tasks are processes of this environment."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
from pathlib import Path

from tidewheel.adapters.local_home import AIRFLOW_USER, LocalHome
from tidewheel.apps.supervisor.processes import QUIET, ProcessSpec
from tidewheel.errors import NotFound
from tidewheel.whole_file import write_whole

VARIABLE, FOLDER = "TIDEWHEEL_AIRFLOW", ".airflow-venv"
PARTS = ("metadatabase", "scheduler", "dag_processor")
TOKEN_KEY = "token-key"
LOOK_EVERY_S = 15  # how soon a changed project file is read again
PARALLELISM = 4


def airflow_environment() -> Path:
    """The folder of Airflow's environment. Raises NotFound, saying how to make one."""
    named = os.environ.get(VARIABLE)
    folder = Path(named) if named else Path(sys.prefix).parent / FOLDER
    if not (folder / "bin" / "airflow").is_file():
        raise NotFound(
            f"{folder}: no Airflow is installed there; run 'make airflow', or name its environment by {VARIABLE}"
        )
    return folder.resolve()


def airflow_standalone(home: LocalHome, project: Path, environment: Path, port: int) -> ProcessSpec:
    """``port``: of the API and its pages, on loopback."""
    url = f"http://127.0.0.1:{port}"
    bundle = {
        "name": "tidewheel",
        "classpath": "tidewheel.pipelines.bundle.ProjectsBundle",
        "kwargs": {"dag_file": str(dag_file()), "refresh_interval": LOOK_EVERY_S},
    }
    settings = {
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": str(PARALLELISM),
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{AIRFLOW_USER}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home.airflow_passwords),
        "API__HOST": "127.0.0.1",
        "API__PORT": str(port),
        "API__BASE_URL": url,
        "API__WORKERS": "1",
        "DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
        "DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home.airflow / "bundles"),
        "DAG_PROCESSOR__REFRESH_INTERVAL": str(LOOK_EVERY_S),
        "API_AUTH__JWT_SECRET_CMD": f"cat {shlex.quote(str(home.airflow / TOKEN_KEY))}",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    variables = {
        **QUIET,
        **{f"AIRFLOW__{name}": value for name, value in settings.items()},
        "AIRFLOW_HOME": str(home.airflow),
        "TIDEWHEEL_PROJECTS": str(project),
        "TIDEWHEEL_TASKS": "processes",
        "TIDEWHEEL_PYTHON": sys.executable,
    }
    command = (str(environment / "bin" / "python"), "-m", "tidewheel.pipelines.standalone")
    return ProcessSpec("airflow", command, variables, port, "/api/v2/monitor/health", PARTS)


def make_secrets(home: LocalHome) -> None:
    """The password and the key of tokens, once, readable by this user alone. Airflow would print the password."""
    home.airflow.mkdir(parents=True, exist_ok=True, mode=0o700)
    home.airflow.chmod(0o700)
    for path, text in (
        (home.airflow_passwords, json.dumps({AIRFLOW_USER: secrets.token_urlsafe(18)})),
        (home.airflow / TOKEN_KEY, secrets.token_urlsafe(64)),
    ):
        if not path.is_file():
            write_whole(path, text.encode())


def dag_file() -> Path:
    """What the project's DAG file is copied from: of the installed package, or of the repository."""
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "dags", package.parents[1] / "dags"):
        if (folder / "model_projects.py").is_file():
            return folder / "model_projects.py"
    raise NotFound(f"{package}: this installation has no DAG file; install tidewheel again")
