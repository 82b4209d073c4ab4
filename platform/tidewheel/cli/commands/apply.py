"""tidewheel apply: put a project's code in force."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from tidewheel.cli.output import Output, output_option, project_argument


@click.command()
@project_argument
@click.option("--wait", is_flag=True, help="Wait until stock Feast clients are told, too; a SQL registry is always "
              "waited for.")  # fmt: skip
@output_option
def command(project: Path, wait: bool, output: Output) -> int:
    """Check PROJECT and put its spec and features in force; running processes follow. Safe to run again.

    \b
    Example:
      tidewheel apply card-fraud
    """
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
