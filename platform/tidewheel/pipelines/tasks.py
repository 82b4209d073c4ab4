"""One task: a subcommand of tidewheel, as a pod or as a process of this machine. It computes nothing itself.

The result is in MLflow, the lake and the journal; a task's state says only whether the command ended well. What imports
the Kubernetes client (seconds) is imported when a pod is started, not when a DAG is read.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from tidewheel.pipelines.job_pod import job_pod
from tidewheel.pipelines.settings import PodSettings, TaskSettings

USAGE = 2  # the exit code that no retry changes
SKIP = 99  # Airflow's customary code for "nothing to do here"
START_TIMEOUT_S = 600  # a node may have to be added and the image pulled
KILL_GRACE_S = 20
_PR_SET_PDEATHSIG = 1
_NOT_OURS = re.compile(r"_*AIRFLOW|PYTHON(?!UNBUFFERED)|VIRTUAL_ENV")


class TidewheelTask(BaseOperator):  # type: ignore[misc]  # Airflow is not in this environment
    """``tidewheel COMMAND`` for a project. An exit code of 99 skips what follows where ``may_skip``."""

    template_fields: Sequence[str] = ("command",)

    def __init__(
        self, *, project: str, command: Sequence[str], settings: TaskSettings, may_skip: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(do_xcom_push=False, **kwargs)
        self.project, self.command, self.settings, self.may_skip = project, list(command), settings, may_skip
        self._child: subprocess.Popen[str] | None = None
        self._pod: Any = None

    def execute(self, context: Any) -> None:
        """Run to the end. Raises AirflowException with the exit code, AirflowSkipException for 99."""
        if self.settings.pods is None:
            self._finish(self._run_process())
        else:
            self._pod = self.pod_operator(self.settings.pods)
            self._pod.execute_sync(context)

    def on_kill(self) -> None:
        if self._pod is not None:
            self._pod.on_kill()
        self._end_child()

    def pod_operator(self, pods: PodSettings) -> Any:
        """Airflow's own operator for the pod of this task."""
        from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

        deadline_s = int(self.execution_timeout.total_seconds())
        signs = self.command[0] == "train"
        return KubernetesPodOperator(
            task_id=self.task_id,
            name=f"{self.project}-{self.task_id}".replace("_", "-"),
            pod_template_dict=job_pod(pods, self.project, self.command[0], signs=signs, deadline_s=deadline_s),
            namespace=pods.namespace,
            arguments=["tidewheel.apps.job", self.project, "--", *self.command],
            do_xcom_push=False,  # its sidecar has no security context
            on_finish_action="delete_pod",
            startup_timeout_seconds=START_TIMEOUT_S,
            skip_on_exit_code=SKIP if self.may_skip else None,
            log_pod_spec_on_failure=False,
            deferrable=False,
        )

    def _run_process(self) -> int:
        subcommand, *rest = self.command
        line = [self.settings.python, "-m", "tidewheel", subcommand, str(self.settings.projects), *rest]
        environment = {name: value for name, value in os.environ.items() if not _NOT_OURS.match(name)}
        self.log.info("event=started command=%s", " ".join(self.command))
        self._child = subprocess.Popen(
            line, env={**environment, "PYTHONUNBUFFERED": "1"}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, preexec_fn=_die_with_parent,  # noqa: PLW1509  # one thread runs here
        )  # fmt: skip
        try:
            for text in self._child.stdout or ():
                self.log.info("%s", text.rstrip("\n"))
            return self._child.wait()
        finally:
            self._end_child()

    def _end_child(self) -> None:
        child = self._child
        if child is None or child.poll() is not None:
            return
        child.terminate()
        try:
            child.wait(timeout=KILL_GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()

    def _finish(self, code: int) -> None:
        if code == 0:
            return
        if code == SKIP and self.may_skip:
            raise AirflowSkipException("nothing to ask a person about")
        told = f"tidewheel {' '.join(self.command)}: exit code {code}; the log above says why"
        raise (AirflowFailException if code == USAGE else AirflowException)(told)


def _die_with_parent() -> None:
    """A command without its task would run beside its own retry (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
