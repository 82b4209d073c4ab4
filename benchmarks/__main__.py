"""``python -m benchmarks [NAME ...] [--size full|tiny] [--output text|json]`` from the repository's root."""

from __future__ import annotations

import importlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks.lines import table_of

BENCHMARKS = (
    "drift", "scoring", "serving", "serving_peers", "overload", "lifecycle", "training_set", "plain_features", "stream",
    "online_read", "stream_kafka",
)  # fmt: skip
LIBRARIES = ("numpy", "duckdb", "onnxruntime", "xgboost-cpu", "evidently", "pandas", "uvicorn")


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(BENCHMARKS))
@click.option("--size", type=click.Choice(["full", "tiny"]), default="full", help="tiny only shows that it runs.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text")
def main(names: tuple[str, ...], size: str, output: str) -> None:
    """Run all benchmarks, or those that are named, one after the other."""
    out, err = Console(width=None if os.isatty(1) else 160), Console(stderr=True)
    told: dict[str, Any] = {"machine": machine(), "size": size, "benchmarks": {}}
    for name in names or BENCHMARKS:
        err.print(f"running {name} ...", style="dim")
        lines = importlib.import_module(f"benchmarks.{name}").run(size)
        told["benchmarks"][name] = [line.fields() for line in lines]
        if output == "text":
            out.print(table_of(name, lines))
    if output == "json":
        click.echo(json.dumps(told))
    else:
        out.print(", ".join(f"{key}: {value}" for key, value in told["machine"].items()))


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    names = [
        line.split(":", 1)[1].strip() for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")
    ]
    memory = next((line.split()[1] for line in _read("/proc/meminfo").splitlines() if line.startswith("MemTotal")), "0")
    return {
        "cpu": f"{os.cpu_count()} x {names[0] if names else platform.machine()}",
        "memory": f"{int(memory) / 2**20:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


if __name__ == "__main__":
    main()
