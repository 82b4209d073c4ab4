"""What the environment says about tasks, and what it must say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidewheel.errors import InputError
from tidewheel.pipelines.settings import PodSettings, TaskSettings, task_settings

PODS = {"TIDEWHEEL_PROJECTS": "/p", "TIDEWHEEL_NAMESPACE": "team", "TIDEWHEEL_PLATFORM_IMAGE": "image:1"}


def test_tasks_are_pods_with_the_names_of_the_chart():
    assert task_settings(PODS) == TaskSettings(Path("/p"), PodSettings("team", "image:1"))


def test_an_installation_may_name_everything_otherwise():
    named = {
        **PODS, "TIDEWHEEL_ENV_SECRETS": "stores, control", "TIDEWHEEL_JOB_MEMORY": "8Gi",
        "TIDEWHEEL_JOB_PULL_SECRETS": "registry", "TIDEWHEEL_JOB_SERVICE_ACCOUNT": "a-job",
    }  # fmt: skip
    pods = task_settings(named).pods
    assert pods is not None
    assert (pods.env_secrets, pods.memory, pods.pull_secrets) == (("stores", "control"), "8Gi", ("registry",))
    assert pods.service_account == "a-job"


def test_on_one_machine_tasks_are_processes_of_the_named_python():
    given = {"TIDEWHEEL_PROJECTS": "/p", "TIDEWHEEL_TASKS": "processes", "TIDEWHEEL_PYTHON": "/venv/bin/python"}
    assert task_settings(given) == TaskSettings(Path("/p"), None, "/venv/bin/python")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param({}, "TIDEWHEEL_PROJECTS is not set", id="no projects"),
        pytest.param({"TIDEWHEEL_PROJECTS": "/p"}, "TIDEWHEEL_NAMESPACE is not set", id="no namespace"),
        pytest.param(
            {**PODS, "TIDEWHEEL_TASKS": "threads"}, "must be pods or processes (got 'threads')", id="another kind"
        ),
        pytest.param(
            {"TIDEWHEEL_PROJECTS": "/p", "TIDEWHEEL_TASKS": "processes"}, "TIDEWHEEL_PYTHON is not set", id="no Python"
        ),
    ],
)
def test_what_is_missing_or_wrong_is_named(given: dict[str, str], message: str):
    with pytest.raises(InputError) as error:
        task_settings(given)
    assert message in str(error.value)
