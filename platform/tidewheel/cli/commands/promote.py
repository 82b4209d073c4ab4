"""tidewheel promote: let a version serve."""

from __future__ import annotations

import getpass
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from tidewheel.cli.output import Output, output_option
from tidewheel.cli.target import cluster_of, target_option

if TYPE_CHECKING:
    from tidewheel.adapters.cluster_target import ClusterTarget

SERVED_TIMEOUT_S = 90.0


@click.command()
@click.argument("where", nargs=-1, required=True, metavar="[PROJECT] VERSION")
@click.option("--reason", required=True, help="Why, for the audit trail.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until every server serves it.")
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="MLflow server; the running platform's by default.")
@target_option
@output_option
def command(
    where: tuple[str, ...], reason: str, wait: bool, tracking_uri: str | None, target: str, namespace: str,
    output: Output,
) -> int:  # fmt: skip
    """Move @champion of PROJECT (the current folder by default) to VERSION: it deploys at once, also while a rollout
    runs.

    \b
    Example:
      tidewheel promote card-fraud 3 --reason "first version, checked by the team"
    """
    if len(where) > 2:
        raise click.UsageError(f"give [PROJECT] VERSION (got {len(where)} arguments)")
    project, version = Path(where[0] if len(where) == 2 else "."), where[-1]
    cluster = cluster_of(target, namespace)
    done = move(project, version, "promoted", reason, wait, tracking_uri, output, cluster)
    output.result(done, lambda console: render_move(console, "promoted", done))
    return 0


def actor() -> str:
    """Who acts, for the audit trail."""
    try:
        return f"cli:{os.environ.get('SUDO_USER') or getpass.getuser()}"
    except (KeyError, OSError):
        return "cli"


def move(
    project: Path, version: str | None, kind: str, reason: str, wait: bool, tracking_uri: str | None, output: Output,
    cluster: ClusterTarget | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Move @champion to ``version``, or to the champion before where it is None, and wait until it is served."""
    if cluster is not None:
        return _move_there(project, version, kind, reason, wait, tracking_uri, output, cluster)
    from tidewheel.adapters.local_cluster import LocalCluster
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.adapters.mlflow_registry import MlflowRegistry
    from tidewheel.adapters.platform_state import read_platform
    from tidewheel.clock import SystemClock
    from tidewheel.journal.ledger import Journal
    from tidewheel.reconcile.moves import move_champion, previous_champion, wait_until_served
    from tidewheel.spec.load import load_project

    name = load_project(project).name
    home, clock = LocalHome.of(project), SystemClock()
    registry = MlflowRegistry(tracking_uri or read_platform(home).mlflow_uri)
    began_us = clock.monotonic_us()
    with Journal(home.journal_url) as journal:
        target = version or previous_champion(journal, name)
        before = move_champion(journal, registry, name, target, kind=kind, actor=actor(), reason=reason)
        generation = None
        if wait:
            pause = threading.Event()
            with output.progress(f"waiting until version {target} is served"):
                generation = wait_until_served(
                    journal, LocalCluster(home), name, target, clock, pause.wait, SERVED_TIMEOUT_S
                )
    return {
        "name": name,
        "version": target,
        "before": before,
        "served": wait,
        "generation": generation,
        "took_s": round((clock.monotonic_us() - began_us) / 1e6, 2),
    }


def _move_there(
    project: Path, version: str | None, kind: str, reason: str, wait: bool, tracking_uri: str | None, output: Output,
    cluster: ClusterTarget,
) -> dict[str, Any]:  # fmt: skip
    """The alias is moved in MLflow; the cluster's controller sees it within two seconds and records it."""
    from tidewheel.adapters.mlflow_registry import MlflowRegistry
    from tidewheel.bundle.registry import CHAMPION
    from tidewheel.clock import SystemClock
    from tidewheel.errors import InputError, NotFound
    from tidewheel.spec.load import load_project

    if not tracking_uri:
        raise InputError("--tracking-uri or MLFLOW_TRACKING_URI is needed: the cluster's MLflow, as reached from here")
    name, clock = load_project(project).name, SystemClock()
    live = cluster.project(name)
    if live is None:
        raise NotFound(f"{name}: not applied to {cluster.context}; run 'tidewheel apply --target {cluster.context}'")
    target = version or live.get("status", {}).get("previous", "")
    if not target:
        raise NotFound(f"{name}: no version served before, so there is nothing to go back to; name one by --to")
    registry = MlflowRegistry(tracking_uri)
    began_us = clock.monotonic_us()
    before = registry.aliases(name).get(CHAMPION)
    registry.tag(name, target, f"tidewheel.{kind}", f"{actor()}: {reason}")
    registry.set_alias(name, CHAMPION, target)
    generation = None
    if wait:
        with output.progress(f"waiting until version {target} is served"):
            done = cluster.wait(name, lambda one: _serves(one, target), clock, threading.Event().wait, SERVED_TIMEOUT_S)
        generation = done["status"]["generation"]
    took_s = round((clock.monotonic_us() - began_us) / 1e6, 2)
    return {
        "name": name,
        "version": target,
        "before": before,
        "served": wait,
        "generation": generation,
        "took_s": took_s,
    }


def _serves(live: Mapping[str, Any], version: str) -> bool:
    status = live.get("status", {})
    ready, _, wanted = status.get("ready", "").partition("/")
    return bool(status.get("version") == version and ready == wanted and status.get("stage") == "steady")


def render_move(console: Console, word: str, done: dict[str, Any]) -> None:
    before = f", version {done['before']} before" if done["before"] not in (None, done["version"]) else ""
    served = f"; every server serves it after {done['took_s']} s" if done["served"] else "; not waited for"
    console.print(f"[green]{word}[/]: @champion of {done['name']} is version {done['version']}{before}{served}")
