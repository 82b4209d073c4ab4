"""One line of a benchmark's result, and how lines are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class Line:
    """``ours`` and ``peer`` in ``unit``, medians over ``n`` rounds; ``ratio`` is how many times better ours is.

    ``reach`` is the ratio to reach, None where the line is there for orientation.
    """

    what: str
    against: str
    ours: float
    peer: float
    unit: str
    n: int
    higher_is_better: bool = False
    reach: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float:
        above, below = (self.ours, self.peer) if self.higher_is_better else (self.peer, self.ours)
        return above / below if below else float("inf") if above else 1.0

    def fields(self) -> dict[str, object]:
        """What ``--output json`` prints of it; a ratio without a finite value is null."""
        ratio = round(self.ratio, 4) if self.ratio != float("inf") else None
        return {
            "what": self.what,
            "against": self.against,
            "ours": self.ours,
            "peer": self.peer,
            "ratio": ratio,
            "unit": self.unit,
            "n": self.n,
            "reach": self.reach,
            "reached": None if self.reach is None else self.ratio >= self.reach,
            "note": self.note,
        }


def shown(value: float) -> str:
    """Three significant digits, or whole numbers from a thousand up."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table_of(title: str, lines: Sequence[Line]) -> Table:
    """A table for people; the ratio is green or red where there is one to reach."""
    made = Table(title=title, title_justify="left", header_style="bold")
    for name in ("what", "ours", "peer", "times better", "to reach", "unit", "n", "peer is"):
        numeric = name in ("ours", "peer", "times better", "to reach", "n")
        made.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for line in lines:
        ratio = shown(line.ratio)
        if line.reach is not None:
            ratio = f"[{'green' if line.ratio >= line.reach else 'red'}]{ratio}[/]"
        reach = "" if line.reach is None else f"{line.reach:g}"
        what = f"{line.what} ({line.note})" if line.note else line.what
        made.add_row(what, shown(line.ours), shown(line.peer), ratio, reach, line.unit, str(line.n), line.against)
    return made
