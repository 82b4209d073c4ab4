"""Project file -> its DAGs: `<project>__monitor` on the spec's cadence, `<project>__train` when that asks for it.

A DAG schedules, it does not compute: a task is one subcommand of tidewheel. Reading a file calls no API and imports no
model library. There is no DAG where there is nothing to run: online features are kept by stream workers, and training
makes its own training set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Param

from tidewheel.errors import SpecError
from tidewheel.pipelines.cadence import schedule_of
from tidewheel.pipelines.notes import monitor_notes, question_text, train_notes
from tidewheel.pipelines.projects import project_file, project_files, read_project
from tidewheel.pipelines.question import ANSWER, APPROVE, LATER, REFUSE, question
from tidewheel.pipelines.settings import TaskSettings, task_settings
from tidewheel.pipelines.tasks import TidewheelTask
from tidewheel.pipelines.times import AS_OF_PATTERN, RunTimes
from tidewheel.spec.project import ModelProject
from tidewheel.spec.stages import cadences_us, lateness_us

ALL = "model_projects"  # name of the DAG file that stands for every project
START = datetime(2026, 1, 1, tzinfo=UTC)  # fixed: a moving one would make a new DAG version at each look
MONITOR_TIMEOUT, TRAIN_TIMEOUT, ANSWER_TIMEOUT = timedelta(hours=1), timedelta(hours=6), timedelta(minutes=10)
ASK_EVERY = timedelta(hours=6)

AS_OF = "{{ times.as_of(dag_run, params) }}"
DECISION = "{{ times.decision(dag_run, params) }}"


def dags_of(dag_file: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The DAGs of the project that a DAG file is named after, or of every project. Raises SpecError, InputError."""
    settings = task_settings(os.environ if environment is None else environment)
    name = Path(dag_file).stem
    folder = settings.projects
    files = list(project_files(folder).values()) if name == ALL else [project_file(folder, name)]
    try:
        projects = [read_project(path) for path in files]
    except SpecError as error:
        raise SpecError(error.problems) from None  # how they were found helps nobody who reads them in Airflow
    return {dag.dag_id: dag for project in projects for dag in project_dags(project, settings)}


def project_dags(project: ModelProject, settings: TaskSettings) -> list[Any]:
    return [_monitor(project, settings), _train(project, settings)]


def _monitor(project: ModelProject, settings: TaskSettings) -> Any:
    # Processes run where events may be replayed: there event time starts runs (apps/scheduler.py), not the wall clock.
    every = schedule_of(cadences_us(project)["monitor"], lateness_us(project)) if settings.pods else None
    with _dag(project, settings, "monitor", every, monitor_notes(project)) as dag:
        monitor = TidewheelTask(
            task_id="monitor", project=project.name, settings=settings, command=["monitor", "--as-of", AS_OF],
            execution_timeout=MONITOR_TIMEOUT,
        )  # fmt: skip
        # One run per decision: where it is there already, somebody asked before, and this task is skipped.
        monitor >> _start_training(project, "retrain", "{{ times.retrain_run(dag_run, params) }}")
    return dag


def _train(project: ModelProject, settings: TaskSettings) -> Any:
    def task(name: str, *command: str, timeout: timedelta = TRAIN_TIMEOUT, may_skip: bool = False) -> TidewheelTask:
        return TidewheelTask(
            task_id=name, project=project.name, settings=settings, command=command, may_skip=may_skip,
            execution_timeout=timeout,
        )  # fmt: skip

    with _dag(project, settings, "train", None, train_notes(project)) as dag:
        if not project.needs_approval:
            task("train", "train", "--if-needed", "--as-of", AS_OF)
            return dag
        policy = task("policy", "train", "--if-needed", "--as-of", AS_OF, "--skip-code", "99", may_skip=True)
        ask = question(
            f"Retrain {project.name} as of {AS_OF}?",
            question_text(project),
            {APPROVE: "approve", REFUSE: "refuse", LATER: "ask_again"},
            ASK_EVERY,
        )
        said = ("--reason", _answer("reason"), "--by", _answer("by"))
        approve = task("approve", "approve", DECISION, *said, timeout=ANSWER_TIMEOUT)
        refuse = task("refuse", "refuse", DECISION, *said, timeout=ANSWER_TIMEOUT)
        ask_again = _start_training(project, "ask_again", "{{ times.next_question(dag_run, params) }}")
        policy >> ask >> [approve, refuse, ask_again]
        approve >> task("train", "train", "--decision", DECISION, "--as-of", AS_OF)
    return dag


def _start_training(project: ModelProject, task_id: str, run_id: str) -> TriggerDagRunOperator:
    return TriggerDagRunOperator(
        task_id=task_id, trigger_dag_id=f"{project.name}__train", trigger_run_id=run_id, conf={"as_of": AS_OF},
        logical_date=None, skip_when_already_exists=True, execution_timeout=ANSWER_TIMEOUT,
    )  # fmt: skip


def _answer(key: str) -> str:
    return f"{{{{ ti.xcom_pull(task_ids='ask', key='{ANSWER}')['{key}'] }}}}"


def _dag(
    project: ModelProject, settings: TaskSettings, stage: str, schedule: str | timedelta | None, notes: str
) -> Any:
    pods = settings.pods is not None
    as_of = Param(
        None, type=["null", "string"], pattern=AS_OF_PATTERN,
        description="Look at the data up to this time (UTC), such as 2026-03-09. Empty: the newest complete period.",
    )  # fmt: skip
    return DAG(
        f"{project.name}__{stage}",
        description=project.description or None,
        schedule=schedule,
        start_date=START,
        catchup=False,
        max_active_runs=1,
        tags=["tidewheel", project.name, stage, f"tier-{project.tier}"],
        doc_md=notes,
        params={"as_of": as_of},
        user_defined_macros={"times": RunTimes(project)},
        default_args={
            "owner": project.owner,
            "retries": 3,
            "retry_delay": timedelta(seconds=60 if pods else 5),
            "retry_exponential_backoff": True,
            "max_retry_delay": timedelta(minutes=15),
        },
    )
