"""A training set of any size is written in bounded memory, and its page's commands work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidewheel.clock import DAY_US, parse_utc
from tidewheel.features.lake import part_name

pytestmark = pytest.mark.integration

SPEC = """
name: large
owner: tests
entities:
  customer: {key: customer_id, type: int64}
sources:
  payments: {topic: payments, path: payments, event_time: at, event_id: id, columns: {amount: float64, fraud: bool}}
request: payments
label: {source: payments, column: fraud, delay: 1d}
training: {window: 7d}
serving: {decision: {approve: 0.0}}
"""
FEATURES = """
from tidewheel.features import count, mean, std, windowed

card = windowed("payments", by="customer", windows=["1d", "3d", "7d"], include_request=True,
                features={"n": count(), "usual": mean("amount"), "spread": std("amount")})
known = windowed("payments", by="customer", windows=["7d"], delay="label", features={"frauds": mean("fraud")})
"""
CHILD = """
import json, re, sys
from pathlib import Path
from tidewheel.cli.main import main
try:
    main()
finally:
    # Not ru_maxrss: a child inherits its parent's.
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
    print(json.dumps({"peak_bytes": int(peak[1]) * 1024}))
"""


def payments(folder: Path, n: int) -> Path:
    """``n`` payments of 100 days, 1,000 a customer, in parts as the worker writes them."""
    random = np.random.default_rng(3)
    times = parse_utc("2026-01-01") + np.sort(random.integers(0, 100 * DAY_US, n))
    size = 250_000
    folder.mkdir(parents=True)
    for first in range(0, n, size):
        taken = slice(first, min(first + size, n))
        rows = taken.stop - taken.start
        table = {
            "customer_id": random.integers(0, n // 1000, rows),
            "at": pa.array(times[taken]).cast(pa.timestamp("us", tz="UTC")),
            "id": np.arange(taken.start, taken.stop).astype(str),
            "amount": random.gamma(2, 20, rows),
            "fraud": random.random(rows) < 0.01,
            "_offset": np.arange(taken.start, taken.stop),
        }
        pq.write_table(pa.table(table), folder / part_name(taken.start, taken.stop), compression="zstd")
    return folder


def written(project: Path, source: Path, *options: str) -> dict[str, float]:
    """The command's JSON, and the peak memory of its process."""
    arguments = ["features", "compute", str(project), "--source", f"payments={source}", "--format", "json", *options]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments, "--output", str(project / "set.parquet")],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = [json.loads(line) for line in done.stdout.splitlines() if line]
    return {**told[0], **told[-1]}


def test_memory_follows_the_limit_and_not_the_history(tmp_path):
    (tmp_path / "project.yaml").write_text(SPEC)
    (tmp_path / "features.py").write_text(FEATURES)
    small = written(tmp_path, payments(tmp_path / "small", 90_000), "--memory-limit", "300MB")
    large = written(tmp_path, payments(tmp_path / "large", 900_000), "--memory-limit", "300MB")
    assert (small["rows"] > 88_000, large["rows"] > 880_000) == (True, True)
    own_bytes = 300 * 2**20 + 450 * 2**20  # the limit, then interpreter, libraries and one piece of rows
    assert large["peak_bytes"] < own_bytes + 2**20 * 250, f"{large['peak_bytes'] / 2**20:.0f} MiB"
    print(f"peak: {small['peak_bytes'] / 2**20:.0f} and {large['peak_bytes'] / 2**20:.0f} MiB")


def test_the_commands_of_the_page_work(repository: Path, tmp_path: Path):
    page = (repository / "docs" / "how-to" / "training-sets.md").read_text(encoding="utf-8")
    first, again, code = (text for _, text in re.findall(r"```(sh|python)\n(.*?)```", page, re.DOTALL))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run(script: str, folder: Path) -> str:
        done = subprocess.run(["bash", "-e", "-c", script], cwd=folder, env={**os.environ, "PATH": path},
                              capture_output=True, text=True, timeout=200, check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    run("tidewheel new card-fraud --template card_fraud", tmp_path)
    project = tmp_path / "card-fraud"
    run("python generate.py --out data --days 45 --customers 80 --terminals 90", project)
    told = run(first, project)
    assert "no value knows the future" in told
    digest = json.loads(run(again, project))["digest"]
    assert digest in told
    rows, unmatched, kept = run(f"python - <<'END'\n{code}END", project).split()
    assert (int(rows) > 1000, int(unmatched), kept) == (True, 0, digest)
