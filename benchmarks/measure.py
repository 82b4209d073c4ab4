"""How a piece of work is measured: wall, CPU and memory of this process, in alternating rounds."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Usage:
    """Of one run: wall seconds, CPU seconds of all threads, and how far resident memory rose above its start."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


def used(work: Callable[[], Any]) -> tuple[Usage, Any]:
    """Usage and result of one run in this process. Memory needs Linux and is 0 elsewhere."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # else what the run before freed hides what this one takes
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is resident now
    before, wall, cpu = status_bytes("VmRSS"), time.perf_counter(), time.process_time()
    result = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Usage(wall, cpu, max(status_bytes("VmHWM") - before, 0)), result


def alternating(rounds: int, works: Mapping[str, Callable[[], Any]]) -> dict[str, tuple[Usage, Any]]:
    """Run the works in turn, ``rounds`` times; medians of their usage and the last result, by name."""
    seen: dict[str, list[Usage]] = {name: [] for name in works}
    results: dict[str, Any] = {}
    for _ in range(rounds):
        for name, work in works.items():
            usage, results[name] = used(work)
            seen[name].append(usage)
    return {name: (middle(usages), results[name]) for name, usages in seen.items()}


def middle(usages: list[Usage]) -> Usage:
    """The median of each figure."""
    return Usage(
        median(u.wall_s for u in usages), median(u.cpu_s for u in usages), int(median(u.peak_bytes for u in usages))
    )


def call_medians_us(rounds: int, calls: int, works: Mapping[str, Callable[[int], Any]]) -> dict[str, float]:
    """Median microseconds of one call each, over ``rounds`` alternating blocks; a work is given the call's number."""
    seen: dict[str, list[int]] = {name: [] for name in works}
    for round_no in range(rounds + 1):
        for name, work in works.items():
            taken = []
            for call in range(calls):
                began = time.perf_counter_ns()
                work(call)
                taken.append(time.perf_counter_ns() - began)
            if round_no:  # the first round warms up
                seen[name] += taken
    return {name: median(taken) / 1000 for name, taken in seen.items()}


def status_bytes(field: str) -> int:
    """A figure of this process' /proc/self/status, 0 where there is none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0
