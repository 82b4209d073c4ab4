"""tidewheel validate: every mistake of a project at once."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from tidewheel.cli.output import Output, output_option, project_argument, table
from tidewheel.errors import SpecError


@click.command()
@project_argument
@output_option
def command(project: Path, output: Output) -> int:
    """Check PROJECT: project.yaml and features.py, every mistake at once with file and line.

    \b
    Example:
      tidewheel validate card-fraud
    """
    from tidewheel.features.load import load_features
    from tidewheel.spec.load import load_project

    try:
        spec = load_project(project)
        features = load_features(project, spec)
    except SpecError as error:
        if not output.as_json:
            raise
        problems = [{"file": p.file, "line": p.line, "message": p.message} for p in error.problems]
        output.result({"valid": False, "problems": problems}, lambda console: None)
        return 1

    def render(console: Console) -> None:
        console.print(f"[green]valid[/]: {spec.name}, {len(features.names)} features in {len(features.views)} views")
        rows = [(view.name, view.kind, ", ".join(view.feature_names)) for view in features.views]
        console.print(table("", ("view", "kind", "features"), rows))

    data = {
        "valid": True,
        "name": spec.name,
        "features": list(features.names),
        "feature_digest": features.digest,
        "problems": [],
    }
    output.result(data, render)
    return 0
