"""tidewheel rollout: hold a rollout where it is, or let it go on."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from tidewheel.cli.output import Output, output_option, project_argument
from tidewheel.cli.target import cluster_of, target_option


@click.group()
def command() -> None:
    """Hold the rollout of a candidate where it is, or let it go on. Guards abort a held one, too.

    \b
    Examples:
      tidewheel rollout pause card-fraud --reason "sale begins tonight"
      tidewheel rollout resume card-fraud --reason "sale is over"
    """


def _options(function: click.decorators.FC) -> click.decorators.FC:
    function = output_option(function)
    function = click.option("--reason", required=True, help="Why, for the ledger.")(function)
    return project_argument(target_option(function))


@command.command()
@_options
def pause(project: Path, target: str, namespace: str, reason: str, output: Output) -> int:
    """Take no further step, and do not promote, until it is resumed."""
    return _set(project, target, namespace, reason, output, paused=True)


@command.command()
@_options
def resume(project: Path, target: str, namespace: str, reason: str, output: Output) -> int:
    """Let the rollout go on from the step where it is."""
    return _set(project, target, namespace, reason, output, paused=False)


def _set(project: Path, target: str, namespace: str, reason: str, output: Output, *, paused: bool) -> int:
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.cli.commands.promote import actor
    from tidewheel.journal.ledger import Journal
    from tidewheel.reconcile.pauses import set_paused
    from tidewheel.spec.load import load_project

    if not reason.strip():
        raise click.BadParameter("must not be empty", param_hint="--reason")
    name, cluster = load_project(project).name, cluster_of(target, namespace)
    changed = True
    if cluster is not None:
        cluster.pause(name, f"{actor()}: {reason.strip()}" if paused else None)
    else:
        with Journal(LocalHome.of(project).journal_url) as journal:
            changed = set_paused(journal, name, paused, actor=actor(), reason=reason.strip())
    word = "paused" if paused else "resumed"

    def render(console: Console) -> None:
        console.print(f"[green]{word}[/]: rollouts of {name}" if changed else f"{name}: rollouts are {word} already")

    output.result({"name": name, "paused": paused, "changed": changed}, render)
    return 0
