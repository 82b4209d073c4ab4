"""tidewheel down: stop everything that runs for a project on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from tidewheel.cli.output import Output, output_option, project_argument


@click.command()
@project_argument
@output_option
def command(project: Path, output: Output) -> int:
    """Stop the platform of PROJECT on this machine; its data stays.

    \b
    Example:
      tidewheel down card-fraud
    """
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.apps.local_platform import stop_platform

    home = LocalHome.of(project)
    with output.progress("stopping the platform"):
        stopped = stop_platform(home)
    word = f"stopped {len(stopped)} processes" if stopped else "nothing was running"
    output.result({"stopped": stopped, "home": home.root}, lambda console: console.print(word))
    return 0
