"""tidewheel logs: the end of a local process's log, followed where asked."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path

import click
from rich.console import Console

from tidewheel.cli.output import Output, output_option

FOLLOW_EVERY_S = 0.2


@click.command()
@click.argument("process", required=False)
@click.option(
    "--project", type=click.Path(path_type=Path, file_okay=False), default=".", help="The model project's folder."
)
@click.option("-n", "--lines", type=click.IntRange(0, 100_000), default=40, show_default=True, help="How many lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on printing until Ctrl-C.")
@output_option
def command(process: str | None, project: Path, lines: int, follow: bool, output: Output) -> int:
    """Show the log of PROCESS, or list the processes that have one.

    \b
    Examples:
      tidewheel logs
      tidewheel logs controller --follow
    """
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.errors import NotFound

    folder = LocalHome.of(project).logs
    names = sorted(path.stem for path in folder.glob("*.log"))
    if process is None:
        output.result({"processes": names}, lambda console: console.print("\n".join(names) or "no logs yet"))
        return 0
    path = folder / f"{process}.log"
    if process not in names:
        raise NotFound(f"{process}: no such log; there are {', '.join(names) or 'none yet, run tidewheel up'}")
    with path.open(encoding="utf-8", errors="replace") as file:
        tail = [line.rstrip("\n") for line in deque(file, maxlen=lines)]
        output.result({"process": process, "log": path, "lines": tail}, lambda console: _print(console, tail))
        pause = threading.Event()
        while follow:
            if line := file.readline():
                click.echo(line, nl=False)
            else:
                pause.wait(FOLLOW_EVERY_S)
    return 0


def _print(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(line, markup=False)
