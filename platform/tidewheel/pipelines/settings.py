"""How tasks run: as pods of a cluster or as processes of this machine. Read from the environment of Airflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tidewheel.errors import InputError

PROJECTS_VARIABLE, TASKS_VARIABLE = "TIDEWHEEL_PROJECTS", "TIDEWHEEL_TASKS"
PODS, PROCESSES = "pods", "processes"


@dataclass(frozen=True)
class PodSettings:
    """What every job pod of an installation shares. Names are those of the chart."""

    namespace: str
    image: str
    env_config_map: str = "tidewheel-env"
    env_secrets: tuple[str, ...] = ("tidewheel-secrets", "tidewheel-control")
    trusted_keys: str = "tidewheel-trusted-keys"
    signing_key: str = "tidewheel-signing-key"
    service_account: str = "tidewheel-job"
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    cpu: str = "200m"
    cpu_limit: str = "2"
    memory: str = "768Mi"
    memory_limit: str = "3Gi"
    scratch: str = "10Gi"


@dataclass(frozen=True)
class TaskSettings:
    """``projects``: a folder of NAME.yaml files, or one project's folder. ``pods`` is None where tasks are processes,
    which ``python`` then runs: the interpreter of the environment that holds tidewheel with its libraries."""

    projects: Path
    pods: PodSettings | None
    python: str = ""


def task_settings(environment: Mapping[str, str]) -> TaskSettings:
    """Raises InputError that names the variable and what it may be."""
    projects = Path(_needed(environment, PROJECTS_VARIABLE, "a folder of NAME.yaml files, or a project's folder"))
    mode = environment.get(TASKS_VARIABLE, PODS)
    if mode not in (PODS, PROCESSES):
        raise InputError(f"{TASKS_VARIABLE}: must be {PODS} or {PROCESSES} (got {mode!r})")
    if mode == PROCESSES:
        python = _needed(environment, "TIDEWHEEL_PYTHON", "the Python of the environment that tidewheel runs in")
        return TaskSettings(projects, None, python)
    return TaskSettings(projects, _pod_settings(environment))


def _pod_settings(environment: Mapping[str, str]) -> PodSettings:
    given = PodSettings(
        _needed(environment, "TIDEWHEEL_NAMESPACE", "the namespace of job pods"),
        _needed(environment, "TIDEWHEEL_PLATFORM_IMAGE", "the image of job pods"),
    )

    def told(name: str, default: str) -> str:
        return environment.get(f"TIDEWHEEL_{name}") or default

    def list_of(name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(part.strip() for part in told(name, ",".join(default)).split(",") if part.strip())

    return PodSettings(
        namespace=given.namespace,
        image=given.image,
        env_config_map=told("ENV_CONFIG_MAP", given.env_config_map),
        env_secrets=list_of("ENV_SECRETS", given.env_secrets),
        trusted_keys=told("TRUSTED_KEYS_CONFIG_MAP", given.trusted_keys),
        signing_key=told("SIGNING_KEY_SECRET", given.signing_key),
        service_account=told("JOB_SERVICE_ACCOUNT", given.service_account),
        pull_policy=told("JOB_PULL_POLICY", given.pull_policy),
        pull_secrets=list_of("JOB_PULL_SECRETS", given.pull_secrets),
        cpu=told("JOB_CPU", given.cpu),
        cpu_limit=told("JOB_CPU_LIMIT", given.cpu_limit),
        memory=told("JOB_MEMORY", given.memory),
        memory_limit=told("JOB_MEMORY_LIMIT", given.memory_limit),
        scratch=told("JOB_SCRATCH", given.scratch),
    )


def _needed(environment: Mapping[str, str], name: str, what: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise InputError(f"{name} is not set; it names {what}")
    return value
