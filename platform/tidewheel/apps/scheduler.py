"""The local scheduler: asks `stages_due` and runs `tidewheel` subcommands, as Airflow does in a cluster.

Event time drives it: the watermark of the request source is its clock. It computes nothing itself, and one
stage runs at a time, so a slow one delays the next instead of competing with it. With --airflow it runs nothing
either: it starts Airflow's runs when event time says so, as the wall clock does in a cluster.

    python -m tidewheel.apps.scheduler --home DIR --project DIR --tracking-uri URI [--airflow URL]
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tidewheel.adapters.airflow_rest import AirflowRuns
from tidewheel.adapters.child_processes import python_module
from tidewheel.adapters.local_home import AIRFLOW_USER, LocalHome
from tidewheel.apps.watermark import watermark_us
from tidewheel.clock import utc_text
from tidewheel.errors import TidewheelError
from tidewheel.findings import decision_id
from tidewheel.journal.ledger import Journal
from tidewheel.spec.load import load_project
from tidewheel.spec.stages import DueStage, stages_due

LOOK_EVERY_S, AFTER_ERROR_S = 0.25, 2.0
STAGE_TIMEOUT_S = 900
ATTEMPTS = 3
COMMANDS: Mapping[str, tuple[str, ...]] = {"monitor": ("monitor",), "retrain": ("train", "--if-needed")}


class Scheduler:
    """One project's schedule on this machine."""

    def __init__(self, home: LocalHome, folder: Path, tracking_uri: str, airflow: AirflowRuns | None = None) -> None:
        self._home, self._folder, self._tracking_uri = home, folder, tracking_uri
        self._airflow = airflow
        self._asked: set[int] = set()  # of Airflow, in this life
        self._journal = Journal(home.journal_url)
        self._stopping = threading.Event()
        self._child: subprocess.Popen[str] | None = None

    def run(self) -> None:
        """Until SIGTERM; a stage under way is ended and runs again later: every stage is safe to repeat."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        while not self._stopping.is_set():
            pause_s = LOOK_EVERY_S
            try:
                self._look()
            except TidewheelError as error:
                _log("not-now", message=str(error))
                pause_s = AFTER_ERROR_S
            self._stopping.wait(pause_s)

    def _look(self) -> None:
        project = load_project(self._folder)
        if self._journal.head(project.name) is None:
            return  # nothing is served yet, so there is nothing to watch
        if self._airflow is None:
            for decision in self._journal.decisions(project.name, kind="retrain", state="approved"):
                self._run_command(("train", "--decision", decision.id))
        now_us = watermark_us(self._home, self._folder, project)
        if now_us is None:
            return
        for due in stages_due(project, self._journal.last_runs(project.name), now_us):
            if self._stopping.is_set():
                return
            if self._airflow is None:
                self._run_stage(project.name, due)
            elif due.stage == "monitor" and due.as_of_us not in self._asked:  # the monitor's DAG starts the rest
                self._start_run(self._airflow, project.name, due.as_of_us)

    def _start_run(self, airflow: AirflowRuns, name: str, as_of_us: int) -> None:
        """Once per as-of time, by the run's id, whoever else asked and however often this process dies."""
        new = airflow.start(f"{name}__monitor", decision_id("monitor", as_of_us), {"as_of": utc_text(as_of_us)})
        self._asked.add(as_of_us)
        _log("run", stage="monitor", as_of=utc_text(as_of_us), new=new)

    def _run_stage(self, name: str, due: DueStage) -> None:
        self._journal.start_run(name, due.stage, due.as_of_us)
        code, result = 0, None
        for _ in range(ATTEMPTS):
            code, result = self._run_command((*COMMANDS[due.stage], "--as-of", utc_text(due.as_of_us)))
            if code == 0 or self._stopping.is_set():
                break
        if not self._stopping.is_set() and (due.stage != "monitor" or code != 0):  # a monitor records its own run
            self._journal.finish_run(name, due.stage, due.as_of_us, {"exit_code": code, "result": result})

    def _run_command(self, command: Sequence[str]) -> tuple[int, Any]:
        name, *rest = command
        line = python_module("tidewheel", name, str(self._folder), *rest, "--output", "json")
        self._child = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            output, errors = self._child.communicate(timeout=STAGE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            output, errors = self._child.communicate()
        code = self._child.returncode
        self._child = None
        _log("stage", command=" ".join(command), exit_code=code, **({"stderr": errors[-2000:]} if code else {}))
        try:
            return code, json.loads(output) if output.strip() else None
        except ValueError:
            return code, output[-2000:]

    def _stop(self, *_: object) -> None:
        self._stopping.set()
        if self._child is not None:
            self._child.terminate()


def _log(event: str, **fields: object) -> None:
    sys.stdout.write(f"event={event} " + " ".join(f"{key}={json.dumps(value)}" for key, value in fields.items()) + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("--airflow", metavar="URL", help="start runs there instead of running stages")
    given = parser.parse_args()
    home = LocalHome(given.home)
    airflow = AirflowRuns(given.airflow, home.airflow_passwords, AIRFLOW_USER) if given.airflow else None
    Scheduler(home, given.project, given.tracking_uri, airflow).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
