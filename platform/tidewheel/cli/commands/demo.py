"""tidewheel demo: watch the whole loop close on this machine."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from tidewheel.cli.output import Output, output_option, table
from tidewheel.errors import InputError

MARK = ".tidewheel-demo"


@click.command()
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default="demo-run", show_default=True,
    help="Where to run; made anew each time.",
)  # fmt: skip
@output_option
def command(folder: Path, output: Output) -> int:
    """Watch the loop close: features, training, serving, drift, approval, retraining, rollout, rollback.

    Real processes, about five minutes, weeks of event time. Everything stops at the end; Ctrl-C stops it at any
    time. It exits 0 only if each step was verified.

    \b
    Example:
      tidewheel demo
      tidewheel demo --output json
    """
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.apps.local_platform import stop_platform
    from tidewheel.cli.demo.commands import Commands
    from tidewheel.cli.demo.screen import Screen
    from tidewheel.cli.demo.story import STAGES, Story

    project = folder / "card-fraud"
    home = LocalHome.of(project)
    _make_anew(folder, lambda: stop_platform(home))
    console = output.err if output.as_json else output.console
    screen = Screen(STAGES, console)
    story = Story(folder, Commands(project, screen.follow), screen)
    began = time.monotonic()
    try:
        with screen.shown():
            story.tell()
        figures = _figures(story, home, time.monotonic() - began)
        output.result(figures, lambda console: _summary(console, figures))
        if not output.as_json and console.is_terminal and sys.stdin.isatty():
            click.prompt("Everything still runs; press Enter to stop it", default="", show_default=False)
    finally:
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # stopping must end, however often Ctrl-C is pressed
        stop_platform(home)
        signal.signal(signal.SIGINT, previous)
    return 0


def _make_anew(folder: Path, stop: Any) -> None:
    if folder.exists():
        if any(folder.iterdir()) and not (folder / MARK).is_file():
            raise InputError(f"{folder}: is not empty and no earlier demo's; choose another with --folder")
        stop()
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).touch()


def _figures(story: Any, home: Any, seconds: float) -> dict[str, Any]:
    return {
        "verified": [
            {"step": step, "seen": seen, "seconds": story.seconds[step]} for step, seen in story.screen.done.items()
        ],
        "duration_s": round(seconds, 1),
        "n_commands": story.commands.n_run,
        "n_days": len(story.days),
        **story.figures,
        "days": story.days,
        "look_at": {
            "mlflow": story.figures["platform"]["mlflow"],
            "report": story.figures["drift"]["report"],
            "predictions": str(home.lake / "predictions"),
            "logs": str(home.logs),
        },
    }


def _summary(console: Console, figures: dict[str, Any]) -> None:
    rows = [("✓", one["step"], one["seen"], f"{one['seconds']:.0f} s") for one in figures["verified"]]
    columns = ("", "step", "what was seen", "took")
    console.print(table("The loop closed, each step verified", columns, rows, numeric=("took",)))
    requests = figures["requests"]
    console.print(
        f"{requests['n_requests']:,} requests, {requests['n_failed']} failed, p50 {requests['p50_ms']:.1f} ms, "
        f"p99 {requests['p99_ms']:.1f} ms; {figures['n_days']} days in {figures['duration_s']:.0f} s"
    )
    for what, where in figures["look_at"].items():
        console.print(f"  {what:<12} {where}")
