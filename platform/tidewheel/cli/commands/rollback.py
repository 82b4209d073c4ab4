"""tidewheel rollback: let the version before serve again."""

from __future__ import annotations

from pathlib import Path

import click

from tidewheel.cli.output import Output, output_option, project_argument
from tidewheel.cli.target import cluster_of, target_option


@click.command()
@project_argument
@click.option("--to", "version", help="Version to go back to; the champion before by default.")
@click.option("--reason", required=True, help="Why, for the audit trail.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until every server serves it.")
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="MLflow server; the running platform's by default.")
@target_option
@output_option
def command(
    project: Path, version: str | None, reason: str, wait: bool, tracking_uri: str | None, target: str,
    namespace: str, output: Output,
) -> int:  # fmt: skip
    """Move @champion of PROJECT back; the old version's features come back with it.

    \b
    Example:
      tidewheel rollback card-fraud --reason "declines doubled after the change"
    """
    from tidewheel.cli.commands.promote import move, render_move

    cluster = cluster_of(target, namespace)
    done = move(project, version, "rolled-back", reason, wait, tracking_uri, output, cluster)
    output.result(done, lambda console: render_move(console, "rolled back", done))
    return 0
