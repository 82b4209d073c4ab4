"""tidewheel schema: the JSON Schema of project.yaml, for editors."""

from __future__ import annotations

from pathlib import Path

import click

from tidewheel.spec.schema import project_schema_text


@click.command()
@click.option("--to", type=click.Path(path_type=Path, dir_okay=False), help="Write here instead of printing.")
def command(to: Path | None) -> int:
    """Print the JSON Schema of project.yaml.

    \b
    Example:
      tidewheel schema --to .tidewheel/project.schema.json
    """
    if to is None:
        click.echo(project_schema_text(), nl=False)
    else:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(project_schema_text(), encoding="utf-8")
    return 0
