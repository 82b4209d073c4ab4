"""tidewheel plan: what an apply would change."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.syntax import Syntax

from tidewheel.cli.output import Output, output_option, project_argument
from tidewheel.cli.target import cluster_of, target_option


@click.command()
@project_argument
@target_option
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Keep the plan, for 'tidewheel apply --plan FILE' after a review.")  # fmt: skip
@output_option
def command(project: Path, target: str, namespace: str, out: Path | None, output: Output) -> int:
    """Show what 'tidewheel apply' of PROJECT would change, as a diff of its code; nothing is changed.

    \b
    Example:
      tidewheel plan card-fraud --out plan.json
      tidewheel apply card-fraud --plan plan.json
    """
    from tidewheel.cli.planned import plan_for
    from tidewheel.whole_file import write_whole

    plan = plan_for(project, cluster_of(target, namespace))
    if out is not None:
        write_whole(out, plan.to_json())

    def render(console: Console) -> None:
        if plan.diff:
            console.print(Syntax(plan.diff, "diff", background_color="default"))
        for sentence in plan.consequences:
            console.print(f"- {sentence}", markup=False)
        if out is not None:
            console.print(f"kept as {out}; apply it with: tidewheel apply {project} --plan {out}", markup=False)

    output.result({**asdict(plan), "changes_something": plan.changes_something}, render)
    return 0
