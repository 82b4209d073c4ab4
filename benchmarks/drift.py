"""Drift of 50 columns: binned summaries and their PSI, against an Evidently report with its PSI.

Both read reference and current rows and say per column whether it drifted, at the limit 0.2. A fifth of the columns
is shifted by three quarters of a standard deviation, which either method sees; Evidently bins by equal width and ours
by reference deciles, so verdicts agree on such data and need not on columns with outliers, where equal width fails.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from benchmarks.lines import Line
from benchmarks.measure import alternating
from tidewheel.evaluation.drift import psi, sampling_limit
from tidewheel.evaluation.profiles import decile_edges, profile_of

LIMIT = 0.2
N_COLUMNS = 50
SHIFTED = frozenset(range(0, N_COLUMNS, 5))
ROUNDS = {"full": {10_000: 3, 100_000: 3}, "tiny": {2_000: 1}}
REACH = 10.0


def run(size: str) -> list[Line]:
    """Lines per number of rows."""
    os.environ["DO_NOT_TRACK"] = "1"
    import pandas as pd

    small = _columns(200, 1)
    _by_evidently(pd.DataFrame(small), pd.DataFrame(_columns(200, 2)))  # the first report pays for cold caches
    lines: list[Line] = []
    for n_rows, rounds in ROUNDS[size].items():
        reference, current = _columns(n_rows, 1), _columns(n_rows, 2, shift=0.75)
        frames = pd.DataFrame(reference), pd.DataFrame(current)
        lines += _lines(n_rows, rounds, reference, current, frames)
    return lines


def _lines(n_rows: int, rounds: int, reference: Any, current: Any, frames: tuple[Any, Any]) -> list[Line]:
    found = alternating(
        rounds,
        {"ours": lambda: by_profiles(reference, current), "peer": lambda: _by_evidently(*frames)},
    )
    (ours, our_verdicts), (peer, peer_verdicts) = found["ours"], found["peer"]
    what, against = f"drift, {n_rows:,} rows x {N_COLUMNS} columns", "Evidently DataDriftPreset(psi)"
    truth = {str(column): column in SHIFTED for column in range(N_COLUMNS)}
    right = [sum(verdicts[name] == truth[name] for name in truth) for verdicts in (our_verdicts, peer_verdicts)]
    same = "same verdicts" if our_verdicts == peer_verdicts else "verdicts differ"
    return [
        Line(f"{what}: wall", against, ours.wall_s, peer.wall_s, "s", rounds, reach=REACH),
        Line(f"{what}: CPU", against, ours.cpu_s, peer.cpu_s, "CPU s", rounds, reach=REACH),
        Line(f"{what}: memory", against, ours.peak_bytes / 2**20, peer.peak_bytes / 2**20, "MiB over start", rounds),
        Line(f"{what}: columns judged right", against, right[0], right[1], "of 50", rounds, True, 1.0, same),
    ]


def _columns(n_rows: int, seed: int, shift: float = 0.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {str(column): rng.normal(shift if column in SHIFTED else 0.0, 1.0, n_rows) for column in range(N_COLUMNS)}


def by_profiles(reference: dict[str, Any], current: dict[str, Any]) -> dict[str, bool]:
    """As training and monitor do it; the reference is summarised anew each time, which a monitor need not."""
    verdicts = {}
    for name, values in reference.items():
        edges = decile_edges(values)
        known, now = profile_of(edges, values), profile_of(edges, current[name])
        chance = sampling_limit(now.n_known, known.n_known, len(known.counts), len(reference))
        verdicts[name] = psi(known.counts, now.counts) > max(LIMIT, chance)
    return verdicts


def _by_evidently(reference: Any, current: Any) -> dict[str, bool]:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(numerical_columns=list(reference.columns))
    report = Report([DataDriftPreset(num_method="psi", num_threshold=LIMIT)], include_tests=True)
    taken = [Dataset.from_pandas(frame, data_definition=definition) for frame in (current, reference)]
    tests = report.run(*taken).dict()["tests"]
    return {
        test["metric_config"]["params"]["column"]: test["status"].value == "FAIL"
        for test in tests
        if test["id"] == "drift"
    }
