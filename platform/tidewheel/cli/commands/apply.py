"""tidewheel apply: put a project's code in force."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from tidewheel.cli.output import Output, output_option, project_argument
from tidewheel.cli.target import cluster_of, target_option
from tidewheel.errors import ContractViolation

if TYPE_CHECKING:
    from tidewheel.adapters.cluster_target import ClusterTarget

WAIT_S = 120.0


@click.command()
@project_argument
@target_option
@click.option("--plan", "plan_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Apply only if what 'tidewheel plan --out FILE' showed still holds.")  # fmt: skip
@click.option("--wait/--no-wait", default=None, help="Here: wait until stock Feast clients are told, too; a SQL "
              "registry is always waited for. In a cluster, by default: wait until its controller has it.")  # fmt: skip
@click.option("--signing-key", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Private key (PEM) that signs the code for a cluster; TIDEWHEEL_SIGNING_KEY_FILE or the home's by "
              "default.")  # fmt: skip
@output_option
def command(
    project: Path, target: str, namespace: str, plan_file: Path | None, wait: bool | None, signing_key: Path | None,
    output: Output,
) -> int:  # fmt: skip
    """Check PROJECT and put its spec and features in force; running processes follow. Safe to run again.

    \b
    Example:
      tidewheel apply card-fraud
      tidewheel apply card-fraud --target production --namespace fraud
    """
    from tidewheel.cli.planned import plan_for
    from tidewheel.reconcile.reviewed import check_still_so, read_plan_file

    cluster = cluster_of(target, namespace)
    if plan_file is not None:
        check_still_so(read_plan_file(plan_file), plan_for(project, cluster))
    if cluster is not None:
        return _apply_there(project, cluster, signing_key, output, wait=wait is not False)
    return _apply_here(project, output, wait=wait is True)


def _apply_there(
    project: Path, cluster: ClusterTarget, key_file: Path | None, output: Output, *, wait: bool
) -> int:  # fmt: skip
    from tidewheel.adapters.cluster_target import object_store_of
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.adapters.object_store import object_store_url
    from tidewheel.adapters.signing_keys import signing_key
    from tidewheel.cli.commands.promote import actor
    from tidewheel.cli.planned import plan_for
    from tidewheel.clock import SystemClock
    from tidewheel.spec.load import project_tree

    home, plan = LocalHome.of(project), plan_for(project, cluster)
    key = signing_key(home, key_file)
    store = object_store_of(object_store_url())
    cluster.apply(home.projects / plan.after, plan.after, project_tree(project), key, store, actor())
    status: dict[str, Any] = {}
    if wait:
        with output.progress(f"waiting until {cluster.context} took it over"):
            live = cluster.wait(
                plan.project, lambda one: _is_taken_over(one, plan.after), SystemClock(), threading.Event().wait, WAIT_S
            )
        status = live["status"]

    def render(console: Console) -> None:
        before = f" (was {plan.before[:12]})" if plan.before and plan.changes_something else ""
        console.print(f"[green]applied[/]: {plan.project} {plan.after[:12]}{before} in {cluster.context}")
        for sentence in plan.consequences:
            console.print(f"- {sentence}", markup=False)

    output.result(
        {"name": plan.project, "digest": plan.after, "before": plan.before, "changed": plan.changes_something,
         "changed_files": list(plan.changed_files), "target": cluster.context, "status": status},
        render,
    )  # fmt: skip
    return 0


def _is_taken_over(live: Mapping[str, Any], digest: str) -> bool:
    """Whether the controller has looked at this very object; raises ContractViolation where it refused it."""
    status = live.get("status", {})
    if status.get("observedGeneration") != live["metadata"]["generation"]:
        return False
    told: Mapping[str, Any] = next((one for one in status.get("conditions", ()) if one["type"] == "Applied"), {})
    if told.get("status") == "False" and told.get("reason") != "BundleMissing":
        raise ContractViolation(f"{live['metadata']['name']}: refused: {told.get('reason')}: {told.get('message')}")
    return bool(told.get("status") == "True" and status.get("code") == digest)


def _apply_here(project: Path, output: Output, *, wait: bool) -> int:
    from tidewheel.adapters.connections import make_event_topics, read_connections
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.apps.feast_clients import project_definitions, start_telling, told_line
    from tidewheel.features.topics import project_topics
    from tidewheel.reconcile.applied import apply_project
    from tidewheel.spec.load import load_project

    home = LocalHome.of(project)
    definitions = project_definitions(home, project)
    make_event_topics(home, project_topics(load_project(project)))
    done = apply_project(project, home_of=home.root)
    telling = start_telling(home, definitions)
    if wait or read_connections(home).feast_registry is not None:
        with output.progress("Telling Feast clients", None):
            told = telling.finish()
    else:
        told = telling.begun()

    def render(console: Console) -> None:
        if done.changed:
            before = f" (was {done.before[:12]})" if done.before else ""
            files = ", ".join(done.changed_files)
            console.print(f"[green]applied[/]: {done.name} {done.now[:12]}{before}; changed: {files}")
        else:
            console.print(f"{done.name}: unchanged, {done.now[:12]} is in force")
        if line := told_line(told, home.feast):
            console.print(line)

    output.result(
        {
            "name": done.name,
            "digest": done.now,
            "before": done.before,
            "changed": done.changed,
            "changed_files": list(done.changed_files),
            "feast": told,
        },
        render,
    )
    return 0
