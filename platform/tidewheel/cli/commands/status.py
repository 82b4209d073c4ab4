"""tidewheel status: what runs, what is served, what was found and who is waited for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape

from tidewheel.cli.output import Output, output_option, project_argument, table
from tidewheel.cli.target import cluster_of, target_option
from tidewheel.clock import utc_text

if TYPE_CHECKING:
    from tidewheel.adapters.cluster_target import ClusterTarget
    from tidewheel.apps.overview import Overview


@click.command()
@project_argument
@target_option
@output_option
def command(project: Path, target: str, namespace: str, output: Output) -> int:
    """Show what runs for PROJECT, which version is served, what was found and which decision waits.

    \b
    Example:
      tidewheel status card-fraud
    """
    from tidewheel.adapters.connections import read_connections
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.apps.overview import read_overview
    from tidewheel.spec.load import load_project

    spec = load_project(project)
    if (cluster := cluster_of(target, namespace)) is not None:
        return _tell_cluster(spec.name, cluster, output)
    seen = read_overview(LocalHome.of(project), project, spec)
    connections = asdict(read_connections(LocalHome.of(project)))
    output.result(
        {**_data(seen), "connections": connections}, lambda console: _render(console, seen, project, connections)
    )
    return 0


def _tell_cluster(name: str, cluster: ClusterTarget, output: Output) -> int:
    from tidewheel.errors import NotFound

    live = cluster.project(name)
    if live is None:
        raise NotFound(f"{name}: not applied to {cluster.context}; run 'tidewheel apply --target {cluster.context}'")
    status = live.get("status", {})
    conditions = [(one["type"], one["status"], one["reason"], one["message"]) for one in status.get("conditions", ())]

    def render(console: Console) -> None:
        console.print(f"[bold]{name}[/] in {cluster.context}: version {status.get('version') or 'none'}, "
                      f"{status.get('stage') or 'not seen by a controller yet'}, "
                      f"pods that serve it {status.get('ready') or '0'}")  # fmt: skip
        if status.get("traffic"):
            console.print(f"traffic: {status['traffic']}")
        if status.get("url"):
            console.print(f"address in the cluster: {status['url']}")
        console.print(table("", ("condition", "is", "reason", "says"), conditions))
        for decision in filter(None, status.get("waiting", "").split(", ")):
            console.print(f"waits for a person: tidewheel approve {decision} --reason TEXT --target {cluster.context}")
        if finding := status.get("finding"):
            console.print(f"[yellow]{finding}[/]: {escape(status.get('message', ''))}")
            console.print(f"runbook: docs/runbooks/{finding}.md")

    output.result({"project": name, "target": cluster.context, **status}, render)
    return 0


def _data(seen: Overview) -> dict[str, object]:
    return {
        "project": seen.project,
        "tier": seen.tier,
        "running": seen.platform is not None,
        "platform": seen.platform.to_json() if seen.platform else None,
        "champion": seen.champion,
        "rollout": seen.rollout,
        "weights": dict(seen.document.weights) if seen.document else {},
        "refused": dict(seen.refused),
        "generation": seen.document.generation if seen.document else None,
        "generation_served": seen.generation_served,
        "as_of": utc_text(seen.as_of_us) if seen.as_of_us is not None else None,
        "lag": dict(seen.lag),
        "last_runs": {stage: utc_text(at) for stage, at in seen.last_runs.items()},
        "monitor": seen.monitor.outcome if seen.monitor else None,
        "findings": [recorded.finding for recorded in seen.findings],
        "decisions": [
            {
                "id": record.id,
                "kind": record.kind,
                "as_of": utc_text(record.as_of_us),
                "action": record.decision.action,
                "state": record.state,
                "findings": record.decision.findings,
                "reason": record.reason,
                "result": record.result,
            }
            for record in seen.decisions
        ],
        "servers": [
            {"replica": server.replica, "port": server.port, "generation": server.generation,
             "versions": server.versions, "counters": dict(server.counters)}
            for server in seen.servers
        ],
    }  # fmt: skip


def _render(console: Console, seen: Overview, folder: Path, connections: Mapping[str, str | None]) -> None:
    at = utc_text(seen.as_of_us) if seen.as_of_us is not None else "no events yet"
    console.print(f"[bold]{seen.project}[/], tier {seen.tier}, event time {at}")
    for source, n in seen.lag.items():
        console.print(f"[yellow]{source}: {n} events behind[/]; see 'tidewheel logs stream-worker'")
    champion = f"version {seen.champion}" if seen.champion else "nothing yet; run 'tidewheel train', then 'promote'"
    console.print(f"serves {champion}" + (f"; {seen.rollout}" if seen.rollout else ""))
    for version, finding in seen.refused.items():
        console.print(f"[red]version {version} does not serve[/]: {finding.reason}: {finding.message}")
        console.print(f"  what to do: docs/runbooks/{finding.reason}.md")
    if seen.platform is None:
        console.print("the platform is not running; run 'tidewheel up'")
    else:
        rows = [(name, p.state, p.pid, p.port, p.restarts) for name, p in seen.platform.processes.items()]
        console.print(table("", ("process", "state", "pid", "port", "restarts"), rows, ("pid", "port", "restarts")))
        for name, url in seen.platform.endpoints.items():
            grpc = seen.platform.grpc_endpoints.get(name)
            console.print(f"{name}: {url}/v2/models/{name}/infer" + (f", gRPC at {grpc}" if grpc else ""))
        console.print(f"MLflow: {seen.platform.mlflow_uri}")
    for what, where in connections.items():
        if where is not None:
            console.print(f"{what.replace('_', ' ')}: {where}")
    if "monitor" in seen.last_runs:
        title = f"findings of {utc_text(seen.last_runs['monitor'])}"
        found = [(r.finding.severity, r.finding.reason, r.finding.message) for r in seen.findings]
        console.print(table(title, ("severity", "reason", "what"), found) if found else f"{title}: none")
        for reason in dict.fromkeys(r.finding.reason for r in seen.findings):
            console.print(f"  what to do: docs/runbooks/{reason}.md")
    if seen.decisions:
        told = [(r.id, r.decision.action, r.state, ", ".join(r.decision.reasons)) for r in seen.decisions]
        console.print(table("newest decisions", ("decision", "action", "state", "because"), told))
    for record in seen.waiting:
        console.print(f"waits for a person: tidewheel approve {folder} {record.id} --reason TEXT")
