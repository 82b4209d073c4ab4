"""How long a batch spent where."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Stages:
    """Monotonic microseconds at which each stage of a batch ended; ``began_us`` is when it was taken from the queue."""

    began_us: int
    read_us: int = 0  # the store has answered
    scored_us: int = 0  # vectors are made, scored and decided
    logged_us: int = 0  # the log has its rows
