"""When an open loop sends: offsets from its start that do not depend on any answer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_AT_ONCE = 4096


def evenly(rate_rps: float) -> Iterator[int]:
    """Microseconds from the start, the same distance apart, without end."""
    number = 0
    while True:
        yield int(number * 1e6 / rate_rps)
        number += 1


def at_random(rate_rps: float, seed: int) -> Iterator[int]:
    """Microseconds from the start of a Poisson process, as callers who know nothing of each other arrive."""
    random, at_us = np.random.default_rng(seed), 0.0
    while True:
        for gap_us in random.exponential(1e6 / rate_rps, _AT_ONCE).tolist():
            yield int(at_us)
            at_us += gap_us
