"""Parser, dispatch and the one error boundary of the command line.

A subcommand's module is imported only when it runs, so that `tidewheel --help` and light commands stay fast.
Exit codes: 0 done, 1 yours (fix the input or the world), 2 usage, 3 ours (a log file is named), 130 interrupted.
"""

from __future__ import annotations

import errno
import importlib
import os
import platform
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NoReturn

import click

from tidewheel import __version__
from tidewheel.cli.output import print_error
from tidewheel.errors import TidewheelError

COMMANDS: dict[str, str] = {
    "new": "Start a model project from a template",
    "validate": "Check a model project: every mistake at once, with file and line",
    "schema": "Print the JSON Schema of project.yaml",
    "up": "Start the platform on this machine",
    "down": "Stop the platform on this machine",
    "status": "Show what runs, what is served and what was found",
    "logs": "Show the log of a local process",
    "plan": "Show what an apply would change",
    "apply": "Bundle a project and make the platform run it",
    "ingest": "Send a file of events or a table through the platform",
    "features": "Compute features for rows, by either engine",
    "train": "Train a version, pass it through the gate and register it",
    "backtest": "Train and test on moving weeks of the past",
    "sign": "Vouch for registered versions with a key",
    "promote": "Let a version serve",
    "rollback": "Let the version before serve again",
    "rollout": "Hold a rollout where it is, or let it go on",
    "predict": "Ask the model server about rows",
    "loadtest": "Load the model server and measure what it carries",
    "monitor": "Check data, drift and performance as of a time",
    "approve": "Approve a decision that waits for a person",
    "refuse": "Refuse a decision that waits for a person",
    "demo": "Watch the whole loop close on this machine",
}


class LazyGroup(click.Group):
    """A group whose commands live in ``tidewheel.cli.commands.<name>`` and load when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"tidewheel.cli.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tidewheel")
def cli() -> None:
    """Real-time machine learning end to end: features, training, serving, monitoring, retraining.

    \b
    A first run:
      tidewheel new card-fraud --template card_fraud
      tidewheel up card-fraud
      tidewheel demo
    """


def main() -> NoReturn:
    """Entry point of the console script; never shows a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.UsageError as error:
        hint = f"; see '{error.ctx.command_path} --help'" if error.ctx else ""
        print_error(f"{error.format_message().rstrip('.')}{hint}")
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        print_error("interrupted")
        sys.exit(130)
    except (TidewheelError, click.ClickException) as error:
        print_error(error.format_message() if isinstance(error, click.ClickException) else str(error))
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        print_error(_os_error_text(error))
        sys.exit(1)
    except Exception as error:  # the boundary between people's faults and ours
        print_error(f"a fault of tidewheel itself: {type(error).__name__}: {error}; details are in {_write_report()}")
        sys.exit(3)


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _os_error_text(error: OSError) -> str:
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):  # one entry per file of a tree
        source, target, _ = error.args[0][0]
        return f"{target}: cannot be copied from {source}; is its disk full, may it be written?"
    path = error.filename2 or error.filename  # of two files the second is the one that is written
    text = error.strerror or str(error)
    hint = "; make room and run the command again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return f"{f'{path}: ' if path else ''}{text[:1].lower()}{text[1:]}{hint}"


def _write_report() -> Path:
    """Traceback and versions into a file fit for a bug report; arguments may hold no secrets by design."""
    text = "\n".join(
        [f"tidewheel {__version__}, Python {sys.version.split()[0]}, {platform.platform()}",
         f"command: {' '.join(sys.argv[1:])}", "", traceback.format_exc()]
    )  # fmt: skip
    with tempfile.NamedTemporaryFile("w", prefix="tidewheel-fault-", suffix=".log", delete=False) as file:
        file.write(text)
    return Path(file.name)
