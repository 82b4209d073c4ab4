"""How commands print: a person reads tables and progress bars, a program reads one JSON object.

With ``--output json`` stdout carries exactly one JSON object and progress goes to stderr as JSON lines
(``{"event": "progress", ...}``), so that a script can follow a long command. Without it, stdout carries the
result and stderr the progress bars.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

F = TypeVar("F", bound=Callable[..., Any])

_PROGRESS_EVERY_S = 0.25
_PIPE_WIDTH = 140


def print_error(message: str) -> None:
    """One error for a person, on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error[/]: {_escape(message)}")


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def to_json(value: Any) -> Any:
    """Plain JSON values; NaN and infinities become null, dataclasses become objects."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_json({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        return to_json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class Step:
    """The handle of one progress bar."""

    def __init__(self, report: Callable[[int, str | None], None]) -> None:
        self._report = report

    def advance(self, n: int = 1, note: str | None = None) -> None:
        """Move the bar by ``n``; ``note`` replaces the text behind it."""
        self._report(n, note)


class Output:
    """What a command prints with; made by the ``output_option`` decorator."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        # A pipe has no width of its own; 80 columns would fold every table.
        width = None if "COLUMNS" in os.environ else _PIPE_WIDTH
        out, err = sys.stdout.isatty(), sys.stderr.isatty()
        self.console = Console(highlight=False, soft_wrap=not out, width=None if out else width)
        self.err = Console(stderr=True, highlight=False, soft_wrap=not err, width=None if err else width)

    def result(self, data: Mapping[str, Any], render: Callable[[Console], None]) -> None:
        """The command's one result: ``data`` as JSON, or ``render`` on the console."""
        if self.as_json:
            click.echo(json.dumps(to_json(data), ensure_ascii=False, allow_nan=False))
        else:
            render(self.console)

    def note(self, message: str) -> None:
        """A remark for a person on stderr; dropped with ``--output json``."""
        if not self.as_json:
            self.err.print(_escape(message))

    def event(self, name: str, **fields: Any) -> None:
        """A JSON line on stderr for a script that follows; dropped for people."""
        if self.as_json:
            click.echo(json.dumps({"event": name, **to_json(fields)}), err=True)

    @contextmanager
    def progress(self, description: str, total: int | None = None) -> Iterator[Step]:
        """A progress bar on stderr (JSON lines with ``--output json``); ``total`` None shows a spinner."""
        if self.as_json:
            yield self._json_progress(description, total)
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.err, transient=True, disable=not self.err.is_terminal) as bar:
            task = bar.add_task(description, total=total, note="")

            def report(n: int, note: str | None) -> None:
                bar.update(task, advance=n)
                if note is not None:
                    bar.update(task, note=note)

            yield Step(report)

    def _json_progress(self, description: str, total: int | None) -> Step:
        done, last = 0, -math.inf

        def report(n: int, note: str | None) -> None:
            nonlocal done, last
            done += n
            now = time.monotonic()
            if now - last >= _PROGRESS_EVERY_S or done == total:
                last = now
                self.event("progress", step=description, done=done, total=total, note=note)

        return Step(report)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], numeric: Sequence[str] = ()) -> Table:
    """A rich table; columns named in ``numeric`` are right-aligned."""
    made = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*("" if cell is None else _escape(str(cell)) for cell in row))
    return made


def output_option(function: F) -> F:
    """``--output text|json``; the command receives ``output: Output``."""

    def convert(ctx: click.Context, param: click.Parameter, value: str) -> Output:
        return Output(as_json=value == "json")

    return click.option(
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        callback=convert,
        help="text for people, json: one JSON object on stdout.",
    )(function)


def project_argument(function: F) -> F:
    """The model project's folder, the current one by default; the command receives ``project: Path``."""
    return click.argument(
        "project", type=click.Path(path_type=Path, file_okay=False), default=".", metavar="[PROJECT]"
    )(function)


def as_of_option(function: F) -> F:
    """``--as-of TIME``; the command receives ``as_of_us: int | None``."""

    def convert(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
        from tidewheel.clock import parse_utc

        if value is None:
            return None
        try:
            return parse_utc(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return click.option(
        "--as-of",
        "as_of_us",
        callback=convert,
        metavar="TIME",
        help="Act as of this event time (UTC), such as 2018-06-04 or 2018-06-04T12:00:00Z.",
    )(function)
