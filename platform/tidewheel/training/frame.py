"""The training frame: labelled rows with their features, checked before anything is fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidewheel.clock import DAY_US, utc_text
from tidewheel.errors import InputError

MIN_ROWS = 200
MIN_POSITIVES = 10
_MORE = "send more events and labels with 'tidewheel ingest', or lengthen training.window or holdout in project.yaml"


@dataclass(frozen=True, eq=False)
class TrainingFrame:
    """Rows by event time. ``x`` float64 [n, k] in the order of ``names``, NaN is missing; ``y`` int8 [n], 0 or 1.

    ``columns`` hold what rows are grouped by: entity keys and the request columns that slices name, each [n].
    """

    names: tuple[str, ...]
    x: NDArray[np.float64]
    y: NDArray[np.int8]
    event_time_us: NDArray[np.int64]
    columns: Mapping[str, NDArray[np.generic]]

    def __len__(self) -> int:
        return len(self.y)

    @property
    def n_positive(self) -> int:
        return int(self.y.sum())

    @property
    def days(self) -> NDArray[np.int64]:
        return self.event_time_us // DAY_US

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> TrainingFrame:
        columns = {name: values[rows] for name, values in self.columns.items()}
        return TrainingFrame(self.names, self.x[rows], self.y[rows], self.event_time_us[rows], columns)

    def between(self, start_us: int, end_us: int) -> TrainingFrame:
        """Rows with event time in [start, end)."""
        return self.take((self.event_time_us >= start_us) & (self.event_time_us < end_us))


def frame_of(
    table: pa.Table,
    names: Sequence[str],
    *,
    event_time: str,
    event_id: str,
    columns: Sequence[str],
    label: str = "label",
) -> TrainingFrame:
    """A frame of ``table``, which holds the named columns and one column per feature.

    Rows are sorted by time and id, so that equal data always gives equal trees. Raises InputError for a label that is
    missing or neither 0 nor 1.
    """
    table = table.sort_by([(event_time, "ascending"), (event_id, "ascending")])
    if table[label].null_count:
        raise InputError(f"training rows: {table[label].null_count} labels are missing; every row needs a label")
    y = table[label].cast(pa.float64()).to_numpy()
    if not np.isin(y, (0.0, 1.0)).all():
        odd = float(y[~np.isin(y, (0.0, 1.0))][0])
        raise InputError(f"training rows: a label must be 0 or 1 (got {odd:g})")
    x = np.empty((table.num_rows, len(names)), dtype=np.float64)
    for index, name in enumerate(names):
        x[:, index] = _numbers(table[name])
    times = table[event_time].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    grouped = {name: _grouping(table[name]) for name in dict.fromkeys(columns)}
    return TrainingFrame(tuple(names), x, y.astype(np.int8), times, grouped)


def check_frame(frame: TrainingFrame, what: str, start_us: int, end_us: int) -> None:
    """Raises InputError where ``what`` (training window or holdout) is too small to fit or to judge a model."""
    where = f"{what} {utc_text(start_us)} to {utc_text(end_us)}"
    if len(frame) < MIN_ROWS:
        raise InputError(f"{where}: {len(frame)} mature labelled rows; at least {MIN_ROWS} are needed; {_MORE}")
    if frame.n_positive < MIN_POSITIVES or len(frame) - frame.n_positive < MIN_POSITIVES:
        raise InputError(
            f"{where}: {frame.n_positive} of {len(frame)} labels are positive; "
            f"at least {MIN_POSITIVES} of each kind are needed; {_MORE}"
        )


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    values: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values


def _grouping(column: pa.ChunkedArray) -> NDArray[np.generic]:
    if pa.types.is_string(column.type) or column.null_count:
        text: NDArray[np.generic] = np.asarray(pc.fill_null(column.cast(pa.string()), ""), dtype=object).astype(str)
        return text
    values: NDArray[np.generic] = column.to_numpy()
    return values
