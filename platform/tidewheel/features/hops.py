"""Checks of precision: what a view's ``precision``, ``hop``, ``max_events`` and ``dedup_for`` may be together.

The hop of a window follows from its length (Chronon's rule) or is declared for the whole view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidewheel.clock import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from tidewheel.features.checks import Checks
from tidewheel.features.declaration import READ_SLACK_US
from tidewheel.features.dsl import Aggregate, WindowedDeclaration
from tidewheel.features.tiles import Level
from tidewheel.spec.scalars import duration_text

DEFAULT_MAX_EVENTS = 10_000
MOST_MAX_EVENTS = 1_000_000
DEFAULT_LATENESS_US = 10 * MINUTE_US
MIN_HOP_US = 30 * SECOND_US
MAX_TILES = 10_000
LADDER_US = (5 * MINUTE_US, HOUR_US, DAY_US)  # hops of windows below 12 hours, below 12 days, and beyond
_WORTH = 4  # a finer level for the head of a hop this many times longer


@dataclass(frozen=True)
class Precision:
    """How one view keeps its events. ``hops_us`` and ``levels`` are empty for exact, ``max_events`` is None for hop."""

    max_events: int | None
    dedup_us: int
    hops_us: tuple[int, ...]
    levels: tuple[Level, ...]
    retention_us: int
    capacity: int


def precision_of(
    checks: Checks,
    view: str,
    declared: WindowedDeclaration,
    windows: Mapping[str, int],
    features: Mapping[str, Aggregate],
    delay_us: int,
    lateness_us: int | None,
) -> Precision | None:
    """The view's precision, None where a problem was reported."""
    before, line = len(checks.problems), declared.line
    hop = declared.precision == "hop"
    if declared.precision not in ("exact", "hop"):
        checks.problem(line, f"{view}: precision must be 'exact' or 'hop' (got {declared.precision!r})")
    if declared.hop is not None and not hop:
        checks.problem(line, f"{view}: hop={declared.hop!r} needs precision='hop'")
    if declared.max_events is not None and hop:
        checks.problem(line, f"{view}: max_events is for precision='exact'; hop holds any number of events")
    for name, aggregate in features.items():
        if hop and not aggregate.aggregation.tiled:
            checks.problem(
                aggregate.line,
                f"{view}.{name}: {aggregate.aggregation.name} needs precision='exact'; tiles cannot hold it",
            )
        if declared.include_request is True and not aggregate.aggregation.with_request:
            checks.problem(
                aggregate.line,
                f"{view}.{name}: {aggregate.aggregation.name} and include_request exclude each other: it would be 0",
            )
    dedup_us = None if declared.dedup_for is None else checks.duration(declared.dedup_for, line, f"{view}: dedup_for")
    if not windows:
        return None
    longest_us = max(windows.values())
    if not hop:
        retention_us = delay_us + longest_us + max(lateness_us or 0, READ_SLACK_US)
        max_events = _max_events(checks, view, declared)
        if dedup_us is not None and dedup_us > retention_us:
            checks.problem(
                line,
                f"{view}: dedup_for must be at most {duration_text(retention_us)}, as long as events are kept "
                f"(got {declared.dedup_for!r})",
            )
        # Behind a delay the newest events are not in the window yet, so as many more of them must fit.
        capacity = max_events * (1 + -(-delay_us // longest_us)) + 1
        made = Precision(max_events, dedup_us or retention_us, (), (), retention_us, capacity)
        return made if len(checks.problems) == before else None
    late_us = DEFAULT_LATENESS_US if lateness_us is None else lateness_us
    if dedup_us is not None and dedup_us < late_us:
        checks.problem(
            line,
            f"{view}: dedup_for must be at least the allowed lateness {duration_text(late_us)} "
            f"(got {declared.dedup_for!r})",
        )
    declared_us = None if declared.hop is None else checks.duration(declared.hop, line, f"{view}: hop")
    if declared_us is not None and declared_us < MIN_HOP_US:
        checks.problem(line, f"{view}: hop must be at least {duration_text(MIN_HOP_US)} (got {declared.hop!r})")
    if len(checks.problems) != before:
        return None
    hops_us = []
    for name, length_us in windows.items():
        hop_us = declared_us or _hop_us(length_us)
        hops_us.append(hop_us)
        if length_us % hop_us:
            checks.problem(
                line,
                f"{view}: window {name!r} must be a multiple of its hop {duration_text(hop_us)}; declare another hop",
            )
        elif (delay_us + length_us + late_us) // hop_us > MAX_TILES:
            checks.problem(
                line,
                f"{view}: window {name!r} has more than {MAX_TILES:,} hops of {duration_text(hop_us)}; "
                f"declare a longer hop",
            )
    if len(checks.problems) != before:
        return None
    levels = _levels(dict(zip(windows.values(), hops_us, strict=True)), delay_us)
    retention_us = delay_us + longest_us + late_us + max(hops_us)
    return Precision(None, dedup_us or late_us, tuple(hops_us), levels, retention_us, 2**31)


def _max_events(checks: Checks, view: str, declared: WindowedDeclaration) -> int:
    given: Any = DEFAULT_MAX_EVENTS if declared.max_events is None else declared.max_events
    if isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= MOST_MAX_EVENTS:
        return given
    checks.problem(
        declared.line, f"{view}: max_events must be a whole number from 1 to {MOST_MAX_EVENTS:,} (got {given!r})"
    )
    return DEFAULT_MAX_EVENTS


def _hop_us(window_us: int) -> int:
    """Source: Chronon, Resolution.scala, FiveMinuteResolution."""
    return LADDER_US[0] if window_us < 12 * HOUR_US else LADDER_US[1] if window_us < 12 * DAY_US else LADDER_US[2]


def _levels(hop_of: Mapping[int, int], delay_us: int) -> tuple[Level, ...]:
    """Levels of tiles, finest first: the hops that windows have, and finer ones for the heads of coarse hops."""
    hops = set(hop_of.values())
    if not delay_us:
        for finer in sorted(LADDER_US, reverse=True):
            least = min(hops)
            if least % finer == 0 and least // finer >= _WORTH:
                hops.add(finer)
    return tuple(
        Level(hop_us, max((window for window, mine in hop_of.items() if mine == hop_us), default=0))
        for hop_us in sorted(hops)
    )
