"""Draws a load test: latency by percentile for each rate, and what was answered of what was sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tidewheel.errors import InputError

SUFFIXES = (".svg", ".png", ".pdf")
_NINES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)


@dataclass(frozen=True, eq=False)
class DrawnRate:
    """One rate: what was sent and answered in time, and every latency in microseconds."""

    offered_rps: float
    within_rps: float
    latencies_us: NDArray[np.int64]


def checked_suffix(path: Path) -> Path:
    """Raises InputError where no picture can be written under that name."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: must end in {', '.join(SUFFIXES)}")
    return path


def draw_latencies(path: Path, title: str, rates: Sequence[DrawnRate], deadline_us: int | None) -> None:
    """Write the picture; the file appears whole or not at all. Raises InputError where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("a plot needs matplotlib: pip install 'tidewheel[plots]'") from error
    figure = Figure(figsize=(12, 5), layout="constrained")
    by_percent, by_rate = figure.subplots(1, 2)
    for rate in sorted(rates, key=lambda one: one.offered_rps):
        n = len(rate.latencies_us)
        if n:
            below = np.arange(n) / n
            by_percent.plot(1 / (1 - below), np.sort(rate.latencies_us) / 1000, label=f"{rate.offered_rps:g}/s")
    nines = [one for one in _NINES if any(len(rate.latencies_us) * (1 - one) >= 1 for rate in rates)]
    by_percent.set_xscale("log")
    by_percent.set_yscale("log")
    by_percent.set_xticks([1 / (1 - one) for one in nines], [f"{one:.6g}" for one in nines])
    by_percent.minorticks_off()
    by_percent.set_xlabel("quantile of requests")
    by_percent.set_ylabel("latency from the scheduled moment, ms")
    by_percent.set_title("Latency")
    ordered = sorted(rates, key=lambda one: one.offered_rps)
    offered = [rate.offered_rps for rate in ordered]
    by_rate.plot(offered, offered, linestyle=":", color="grey", label="sent")
    within = [rate.within_rps for rate in ordered]
    label = "answered" if deadline_us is None else "answered within the deadline"
    by_rate.plot(offered, within, marker="o", label=label)
    by_rate.set_xlabel("requests sent a second")
    by_rate.set_ylabel("requests a second")
    by_rate.set_ylim(bottom=0)
    by_rate.set_title("Carried")
    if deadline_us is not None:
        by_percent.axhline(deadline_us / 1000, color="red", linestyle="--", label="deadline")
    for one in (by_percent, by_rate):
        one.grid(alpha=0.3)
        if one.get_legend_handles_labels()[0]:
            one.legend()
    figure.suptitle(title)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        figure.savefig(temporary, format=path.suffix.lower().removeprefix("."), dpi=120)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
