"""Whether request functions give a row the same value alone, among others and in another order.

Training runs them over all rows at once, a server over whatever requests came together. A function that looks beyond
its row (a mean over the batch, a rank, a running sum, a random number) would serve what nobody trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidewheel.errors import TidewheelError
from tidewheel.features.declaration import FeatureSet, RequestView
from tidewheel.features.functions import run_function
from tidewheel.features.rows import column_array
from tidewheel.findings import Finding

N_ROWS = 200
SEED = 7

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays, int], NDArray[np.float64]]


def transforms_finding(features: FeatureSet, rows: pa.Table, made: pa.Table) -> Finding | None:
    """``rows`` as sent, ``made`` the features of the same rows. The newest rows are tried, N_ROWS of them.

    A TransformUnstable that names every function with a value that is not equal bit by bit.
    """
    n = min(N_ROWS, rows.num_rows)
    sent, found = rows.slice(rows.num_rows - n), made.slice(made.num_rows - n)
    unstable = []
    for view in features.views:
        if isinstance(view, RequestView):
            given = {
                name: column_array(sent[name])
                if name in sent.column_names
                else column_array(found[name]).astype(np.float64)
                for name in view.arguments
            }

            def run(arrays: Arrays, size: int, view: RequestView = view) -> NDArray[np.float64]:
                return np.asarray(run_function(view.name, view.function, arrays, size), dtype=np.float64)

            if why := _difference(run, given, n):
                unstable.append(f"{view.name}: {why}")
    if not unstable:
        return None
    return Finding("TransformUnstable", f"on {n} rows: {'; '.join(unstable)}", "critical", value=float(len(unstable)))


def _difference(run: Run, given: Arrays, n: int) -> str:
    together = run(given, n)
    order = np.random.default_rng(SEED).permutation(n)
    try:
        shuffled = np.empty(n)
        shuffled[order] = run({name: values[order] for name, values in given.items()}, n)
        alone = np.array([run(_row(given, row), 1)[0] for row in range(n)])
        again = run(given, n)
    except (TidewheelError, IndexError) as error:
        return f"fails on a row alone: {error}"
    for other, how in ((again, "asked twice"), (alone, "alone"), (shuffled, "in another order")):
        if (row := _first_off(together, other)) is not None:
            return f"{together[row]!r} among others, {other[row]!r} {how}"
    return ""


def _row(given: Arrays, row: int) -> Arrays:
    return {name: values[row : row + 1] for name, values in given.items()}


def _first_off(one: NDArray[np.float64], other: NDArray[np.float64]) -> int | None:
    """The first row whose bits differ; a NaN is like any other."""
    off = (one.view(np.int64) != other.view(np.int64)) & ~(np.isnan(one) & np.isnan(other))
    return int(np.flatnonzero(off)[0]) if off.any() else None
