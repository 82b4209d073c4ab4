"""tidewheel apply: put a project's code in force."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from tidewheel.cli.output import Output, output_option, project_argument


@click.command()
@project_argument
@output_option
def command(project: Path, output: Output) -> int:
    """Check PROJECT and put its spec and features in force; running processes follow. Safe to run again.

    \b
    Example:
      tidewheel apply card-fraud
    """
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.reconcile.applied import apply_project

    home = LocalHome.of(project)
    done = apply_project(project, home_of=home.root)

    def render(console: Console) -> None:
        if not done.changed:
            console.print(f"{done.name}: unchanged, {done.now[:12]} is in force")
            return
        before = f" (was {done.before[:12]})" if done.before else ""
        console.print(
            f"[green]applied[/]: {done.name} {done.now[:12]}{before}; changed: {', '.join(done.changed_files)}"
        )

    output.result(
        {
            "name": done.name,
            "digest": done.now,
            "before": done.before,
            "changed": done.changed,
            "changed_files": list(done.changed_files),
        },
        render,
    )
    return 0
