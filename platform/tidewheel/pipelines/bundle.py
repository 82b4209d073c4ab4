"""A DAG bundle with one file per project, so that Airflow itself keeps projects apart.

Airflow counts an import error against a file and stops scheduling every DAG of that file. So each project file gets a
DAG file of its own, a copy of `dags/model_projects.py` under the project's name: a broken project is an import error
of its own file alone, with file and line, and a task reads its own project only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow.dag_processing.bundles.base import BaseDagBundle

import tidewheel.pipelines.factory  # noqa: F401  # once, here: each file is read in a fork of this process
from tidewheel.pipelines.projects import project_files
from tidewheel.pipelines.settings import task_settings
from tidewheel.whole_file import write_whole


class ProjectsBundle(BaseDagBundle):  # type: ignore[misc]  # Airflow is not in this environment
    """``dag_file``: what is copied. Which projects there are is looked at each ``refresh_interval``."""

    supports_versioning = False

    def __init__(self, *, dag_file: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._dag_file = Path(dag_file)

    @property
    def path(self) -> Path:
        folder: Path = self.base_dir / "dags"
        return folder

    def initialize(self) -> None:
        self.refresh()
        super().initialize()

    def refresh(self) -> None:
        text = self._dag_file.read_bytes()
        wanted = {f"{name}.py" for name in project_files(task_settings(os.environ).projects)}
        self.path.mkdir(parents=True, exist_ok=True)
        for name in sorted(wanted):
            path = self.path / name
            if not path.is_file() or path.read_bytes() != text:
                write_whole(path, text)
        for path in self.path.glob("*.py"):
            if path.name not in wanted:
                path.unlink(missing_ok=True)

    def get_current_version(self) -> None:
        return None
