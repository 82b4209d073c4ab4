"""tidewheel up: start the platform on this machine and wait until it is healthy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from tidewheel.cli.output import Output, output_option, project_argument, table

if TYPE_CHECKING:
    from tidewheel.adapters.local_home import LocalHome


@click.command()
@project_argument
@click.option("--mlflow-port", type=click.IntRange(1, 65535), help="Port of the MLflow server; a free one by default.")
@click.option("--online-store", metavar="URL", help="Where online features are: redis://HOST:PORT, rediss://..., "
              "redis+cluster://HOST:PORT,HOST:PORT or sqlite:PATH; the project's file by default. Kept.")  # fmt: skip
@click.option("--event-log", metavar="URL", help="Where events are: kafka://HOST:PORT,HOST:PORT or file:PATH; the "
              "project's own folder by default. Kept.")  # fmt: skip
@click.option("--feast-registry", metavar="URL", help="A SQL registry for stock Feast clients, such as "
              "postgresql://HOST/DATABASE; the project's own file by default. Kept.")  # fmt: skip
@click.option("--airflow", is_flag=True, help="Run monitor and retrain in Airflow, which 'make airflow' installs; "
              "the local scheduler then only tells it when.")  # fmt: skip
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until every process is healthy.")
@output_option
def command(
    project: Path,
    mlflow_port: int | None,
    online_store: str | None,
    event_log: str | None,
    feast_registry: str | None,
    airflow: bool,
    wait: bool,
    output: Output,
) -> int:
    """Start the platform for PROJECT on this machine: MLflow, stream worker, controller, scheduler.

    It runs in the background, restarts what crashes, and keeps its state in PROJECT/.tidewheel. Model servers
    start when a version is promoted. Running it again is safe.

    \b
    Example:
      tidewheel up card-fraud
      tidewheel up card-fraud --online-store redis://127.0.0.1:6379
      tidewheel up card-fraud --airflow
    """
    from tidewheel.adapters.child_processes import port_is_free
    from tidewheel.adapters.connections import make_event_topics
    from tidewheel.adapters.local_home import AIRFLOW_USER, LocalHome
    from tidewheel.adapters.platform_state import PlatformState
    from tidewheel.adapters.signing_keys import ensure_keys
    from tidewheel.apps.feast_clients import project_definitions, start_telling, told_line
    from tidewheel.apps.local_platform import (
        AIRFLOW_TIMEOUT_S,
        START_TIMEOUT_S,
        running_platform,
        start_platform,
        unsigned_versions,
        wait_until_running,
    )
    from tidewheel.apps.supervisor.airflow import airflow_environment
    from tidewheel.clock import SystemClock
    from tidewheel.errors import InputError
    from tidewheel.features.load import load_features
    from tidewheel.features.topics import project_topics
    from tidewheel.reconcile.applied import apply_project
    from tidewheel.spec.load import load_project

    spec = load_project(project)
    load_features(project, spec)
    home = LocalHome.of(project)
    if mlflow_port is not None and running_platform(home) is None and not port_is_free(mlflow_port):
        raise InputError(f"port {mlflow_port} is in use; choose another with --mlflow-port or leave it out")
    environment = airflow_environment() if airflow else None
    if airflow and (already := running_platform(home)) is not None and "airflow" not in already.processes:
        raise InputError("the platform runs without Airflow; run 'tidewheel down' first")
    ensure_keys(home)
    unsigned = unsigned_versions(home)
    definitions = project_definitions(home, project)
    apply_project(project, home_of=home.root)
    _connect(home, {"online_store": online_store, "event_log": event_log, "feast_registry": feast_registry})
    make_event_topics(home, project_topics(spec))
    telling = start_telling(home, definitions)
    started = start_platform(home, project, mlflow_port, environment)
    state: PlatformState | None = running_platform(home)
    if wait:
        with output.progress("starting the platform", total=4) as step:
            seen: set[str] = set()

            def report(now: PlatformState) -> None:
                for name, process in now.processes.items():
                    if process.state == "running" and name not in seen:
                        seen.add(name)
                        step.advance(1, note=name)

            limit_s = AIRFLOW_TIMEOUT_S if airflow else START_TIMEOUT_S
            state = wait_until_running(home, SystemClock(), report, limit_s)

    told = telling.finish()

    def render(console: Console) -> None:
        word = "started" if started else "already running"
        console.print(f"[green]{word}[/]: {spec.name}, state in {home.root}")
        for version, why in unsigned.items():
            console.print(f"[yellow]version {version} cannot serve[/]: {why}")
        if state is None:
            return
        rows = [(name, p.state, p.pid, p.port, p.log) for name, p in state.processes.items()]
        console.print(table("", ("process", "state", "pid", "port", "log"), rows, numeric=("pid", "port")))
        console.print(f"MLflow: {state.mlflow_uri}")
        if airflow_process := state.processes.get("airflow"):
            console.print(
                f"Airflow: http://127.0.0.1:{airflow_process.port}, user {AIRFLOW_USER}, "
                f"password in {home.airflow_passwords}"
            )
        if line := told_line(told, home.feast):
            console.print(line)

    body = state.to_json() if state is not None else {"state": "starting"}
    output.result(
        {"project": spec.name, "started": started, "home": home.root, "feast": told, "unsigned": unsigned, **body},
        render,
    )
    return 0


def _connect(home: LocalHome, given: Mapping[str, str | None]) -> None:
    """Keep the connections that were named; the others stay as they are. Raises InputError."""
    from tidewheel.adapters.connections import (
        checked_event_log,
        checked_online_store,
        read_connections,
        write_connections,
    )
    from tidewheel.apps.local_platform import running_platform
    from tidewheel.errors import InputError

    kept = read_connections(home)
    named = {name: url for name, url in given.items() if url is not None}
    if "online_store" in named:
        named["online_store"] = checked_online_store(named["online_store"])
    if "event_log" in named:
        named["event_log"] = checked_event_log(named["event_log"])
    wanted = replace(kept, **named)
    if wanted == kept:
        return
    if running_platform(home) is not None:
        raise InputError("the platform runs with other connections; run 'tidewheel down' first")
    write_connections(home, wanted)
