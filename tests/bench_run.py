"""Runs benchmarks at their tiny size, as a person would, for the tests of both tiers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FIELDS = {"what", "against", "ours", "peer", "ratio", "unit", "n", "reach", "reached", "note"}


def lines_of(repository: Path, *names: str) -> dict[str, list[dict[str, Any]]]:
    """Lines by benchmark."""
    command = [sys.executable, "-m", "benchmarks", *names, "--size", "tiny", "--output", "json"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["size"], list(told["benchmarks"])) == ("tiny", list(names))
    assert told["machine"]["cpu"] and told["machine"]["python"]
    lines: dict[str, list[dict[str, Any]]] = told["benchmarks"]
    return lines
