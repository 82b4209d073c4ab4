"""What the demo shows while it runs: one live screen; nothing where there is no terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

NEWEST_LINES = 8


@dataclass
class Screen:
    """The state of the screen; the story writes the fields, ``shown`` draws them."""

    stages: tuple[str, ...]
    console: Console
    done: dict[str, str] = field(default_factory=dict)
    stage: str = ""
    doing: str = ""
    part: float = 0.0  # of the step under way, 0 to 1
    event_time: str = "-"
    day: str = "-"  # of live traffic, counted from 1
    version: str = "-"
    rate_rps: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    n_requests: int = 0
    n_failed: int = 0
    findings: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def begin(self, stage: str) -> None:
        self.stage, self.doing, self.part = stage, "", 0.0

    def finish(self, stage: str, what: str) -> None:
        self.done[stage] = what
        self.say(f"[green]✓[/] {stage}: {what}")

    def say(self, line: str) -> None:
        """A line of news; printed at once where there is no live screen."""
        self.lines.append(line)
        if not self.console.is_terminal:
            self.console.print(line)

    def follow(self, event: dict[str, Any]) -> None:
        """Progress of a command under way."""
        if event.get("event") != "progress":
            return
        self.doing = str(event.get("step") or "")
        total = event.get("total")
        self.part = min(1.0, event["done"] / total) if total else 0.0
        note = event.get("note")
        if isinstance(note, str) and note.startswith("{"):
            rates = json.loads(note)
            self.rate_rps, self.p50_ms, self.p99_ms = (rates.get(key) for key in ("rate_rps", "p50_ms", "p99_ms"))

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw until the block ends."""
        if not self.console.is_terminal:
            yield
            return
        with Live(self, console=self.console, refresh_per_second=4, transient=True):
            yield

    def __rich__(self) -> RenderableType:
        grid = Table.grid(padding=(0, 3), expand=True)
        grid.add_column(ratio=5)
        grid.add_column(ratio=4)
        grid.add_row(self._stages(), self._now())
        news = Text.from_markup("\n".join(self.lines[-NEWEST_LINES:]) or "starting")
        return Panel(Group(grid, Text(), news), title="[bold]tidewheel demo[/]", subtitle="Ctrl-C stops everything")

    def _stages(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        for stage in self.stages:
            if stage in self.done:
                table.add_row("[green]✓[/]", stage)
            elif stage == self.stage:
                table.add_row("[yellow]▶[/]", f"[bold]{stage}[/]")
            else:
                table.add_row("[dim]·[/]", f"[dim]{stage}[/]")
        bar = ProgressBar(total=1.0, completed=self.part, width=36)
        return Group(table, Text(), bar, Text(self.doing or " ", style="dim"))

    def _now(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        table.add_row("event time", self.event_time)
        table.add_row("day of traffic", self.day)
        table.add_row("serves", self.version)
        table.add_row("requests", f"{self.n_requests:,}, {self.n_failed} failed")
        table.add_row("rate", f"{self.rate_rps:,.0f}/s" if self.rate_rps else "-")
        speeds = [f"{ms:.1f} ms" if ms is not None else "-" for ms in (self.p50_ms, self.p99_ms)]
        table.add_row("p50 / p99", " / ".join(speeds))
        table.add_row("findings", "\n".join(self.findings[:4]) or "[green]none[/]")
        return table
