"""Work measured in a process of its own: its peak memory is then its own, libraries and all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Usage, status_bytes

ROOT = Path(__file__).resolve().parents[1]


def measured(work: Callable[[], Any]) -> Any:
    """Run inside the child: prints its usage for the parent, gives back what the work gives."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    # Not ru_maxrss: a child's begins with what its parent held when it started it.
    peak = status_bytes("VmHWM")
    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "peak_bytes": peak}))
    return result


def child(module: str, *arguments: str | Path, python: str = sys.executable) -> Usage:
    """Usage of ``python -m module arguments``, which calls ``measured`` once. Raises RuntimeError with its words."""
    done = subprocess.run(
        [python, "-m", module, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{module}: {done.stderr[-2000:]}")
    return Usage(**json.loads(done.stdout.splitlines()[-1]))


def alternating_children(rounds: int, works: Mapping[str, Callable[[], Usage]]) -> dict[str, Usage]:
    """Run the children in turn; the medians of their wall and CPU times, and the highest peak."""
    seen: dict[str, list[Usage]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            seen[name].append(work())
    return {
        name: Usage(median(u.wall_s for u in all_), median(u.cpu_s for u in all_), max(u.peak_bytes for u in all_))
        for name, all_ in seen.items()
    }
