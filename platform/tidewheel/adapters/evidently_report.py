"""Evidently's drift report over two samples, as one HTML page for people. No decision depends on it.

    python -m tidewheel.adapters.evidently_report --reference A.parquet --current B.parquet --out PAGE.html --title T

Importing Evidently takes seconds, so callers draw in a child process with a time-out and go on when it fails.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidewheel.errors import Unavailable

MAX_ROWS = 10_000
TIMEOUT_S = 180.0
PSI_LIMIT = 0.2


def draw_in_child(reference: Path, current: Path, page: Path, title: str, timeout_s: float = TIMEOUT_S) -> Path:
    """Draw in a child process of its own. Raises Unavailable where that fails or takes too long."""
    command = [sys.executable, "-m", "tidewheel.adapters.evidently_report", "--title", title]
    command += ["--reference", str(reference), "--current", str(current), "--out", str(page)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"drift report: took longer than {timeout_s:.0f} s; the findings are recorded") from error
    if done.returncode != 0 or not page.is_file():
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise Unavailable(f"drift report: was not drawn ({last[0][:300]}); the findings are recorded")
    return page


def render_report(reference_df: Any, current_df: Any, columns: Sequence[str], path: Path, title: str) -> list[str]:
    """Write the page; both are pandas frames, samples of MAX_ROWS rows are taken. Returns the columns it shows.

    Columns that Evidently cannot read are left out: empty ones and constant ones, and infinities count as missing.
    Raises ValueError where no column is left.
    """
    os.environ["DO_NOT_TRACK"] = "1"
    import numpy as np
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    reference_df, current_df = (
        _sample(frame).replace([np.inf, -np.inf], np.nan) for frame in (reference_df, current_df)
    )
    usable = [
        column
        for column in columns
        if reference_df[column].nunique() > 1 and current_df[column].notna().any() and current_df[column].nunique() > 1
    ]
    if not usable:
        raise ValueError("no column has values in both samples")
    definition = DataDefinition(numerical_columns=usable)
    report = Report(
        [DataDriftPreset(num_method=_decile_psi(), num_threshold=PSI_LIMIT)],
        include_tests=True,
        metadata={"title": title},
    )
    current, reference = (
        Dataset.from_pandas(frame[usable].astype(float), data_definition=definition)
        for frame in (current_df, reference_df)
    )
    snapshot = report.run(current, reference)  # the current data comes first
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        snapshot.save_html(str(temporary))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return usable


def _sample(frame: Any) -> Any:
    return frame if len(frame) <= MAX_ROWS else frame.sample(MAX_ROWS, random_state=0).sort_index()


def _decile_psi() -> str:
    """Register the monitor's own statistic with Evidently, so that page and finding agree; its name."""
    from evidently.legacy.calculations.stattests.registry import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    from tidewheel.evaluation.drift import psi
    from tidewheel.evaluation.profiles import bin_counts, decile_edges

    def decile_psi(reference: Any, current: Any, feature_type: object, threshold: float) -> tuple[float, bool]:
        known, now = reference.to_numpy(dtype=float), current.to_numpy(dtype=float)
        edges = decile_edges(known)
        value = psi(bin_counts(edges, known).tolist(), bin_counts(edges, now).tolist())
        return value, value >= threshold

    register_stattest(
        StatTest(
            name="psi_deciles",
            display_name="PSI, reference deciles",
            allowed_feature_types=[ColumnType.Numerical],
            default_threshold=PSI_LIMIT,
        ),
        decile_psi,
    )
    return "psi_deciles"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("reference", "current", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--title", required=True)
    given = parser.parse_args()
    import pandas as pd

    reference, current = pd.read_parquet(given.reference), pd.read_parquet(given.current)
    columns = [column for column in reference.columns if column in current.columns]
    render_report(reference, current, columns, given.out, given.title)
    return 0


if __name__ == "__main__":
    sys.exit(main())
