"""Start and stop the local platform: what `tidewheel up`, `down` and `demo` do."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from tidewheel.adapters.child_processes import belonging_to, is_alive, python_module, start, stop
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.platform_state import PlatformState, read_platform
from tidewheel.adapters.signing_keys import ensure_keys, trusted_keys
from tidewheel.bundle.signature import SignatureRefused, verify_trusted
from tidewheel.clock import SECOND_US, Clock
from tidewheel.deployment.document import document_from_json
from tidewheel.errors import NotFound, TidewheelError, Unavailable

LOOK_EVERY_S = 0.1
START_TIMEOUT_S, AIRFLOW_TIMEOUT_S = 120, 300
STOP_TIMEOUT_S = 40


def running_platform(home: LocalHome) -> PlatformState | None:
    """The platform's state where its supervisor is alive, else None."""
    try:
        state = read_platform(home)
    except NotFound:
        return None
    return state if is_alive(state.pid) else None


def start_platform(home: LocalHome, project: Path, mlflow_port: int | None, airflow: Path | None = None) -> bool:
    """Start a supervisor unless one runs; returns False where one did. Does not wait for health.

    ``airflow``: the environment whose Airflow runs the schedules instead of the local scheduler.
    """
    if running_platform(home) is not None:
        return False
    ensure_keys(home)
    port = ("--mlflow-port", str(mlflow_port)) if mlflow_port else ()
    command = python_module(
        "tidewheel.apps.supervisor",
        "--home",
        str(home.root),
        "--project",
        str(project.resolve()),
        *port,
        *(("--airflow", str(airflow)) if airflow else ()),
    )
    start(command, home=home.root, log=home.logs / "supervisor.log", with_parent=False)
    return True


def unsigned_versions(home: LocalHome) -> dict[str, str]:
    """Versions that a deployment document names and no trusted key signed: version to what is wrong and what to run."""
    found: dict[str, str] = {}
    trusted = trusted_keys(home)
    for path in sorted(home.deployments.glob("*.json")):
        try:
            variants = document_from_json(path.read_bytes(), str(path)).variants
        except TidewheelError:
            continue  # the controller writes it again
        for variant in variants:
            folder = home.bundles / variant.digest
            try:
                if folder.is_dir():
                    verify_trusted(folder, variant.digest, trusted)
            except SignatureRefused as error:
                found[variant.version] = str(error)
            except TidewheelError:
                continue  # a damaged copy is fetched again
    return found


def wait_until_running(
    home: LocalHome, clock: Clock, report: Callable[[PlatformState], None], timeout_s: int = START_TIMEOUT_S
) -> PlatformState:
    """Wait until every needed process is healthy.

    Raises Unavailable, with the logs to look at, when that takes longer than ``timeout_s``.
    """
    deadline_us = clock.monotonic_us() + timeout_s * SECOND_US
    pause = threading.Event()
    while clock.monotonic_us() < deadline_us:
        state = running_platform(home)
        if state is not None:
            report(state)
            if state.state == "running":
                return state
        pause.wait(LOOK_EVERY_S)
    raise Unavailable(_why_not_running(home, timeout_s))


def stop_platform(home: LocalHome) -> list[int]:
    """Stop the supervisor and everything that belongs to the home; returns the process ids that were stopped."""
    state = running_platform(home)
    pids = belonging_to(home.root)
    if state is not None:
        stop([state.pid], STOP_TIMEOUT_S)
    left = [pid for pid in belonging_to(home.root) if pid != os.getpid()]
    stop(left, grace_s=5)
    home.state_file.unlink(missing_ok=True)
    return pids


def _why_not_running(home: LocalHome, timeout_s: int) -> str:
    state = running_platform(home)
    if state is None:
        return f"the platform did not start within {timeout_s} s; see {home.logs / 'supervisor.log'}"
    late = [
        f"{name} ({process.state}, {process.restarts} restarts, see {process.log})"
        for name, process in state.processes.items()
        if process.state != "running"
    ]
    return f"not healthy after {timeout_s} s: {', '.join(late)}"
