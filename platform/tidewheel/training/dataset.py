"""Labelled rows with features for a span of event time, through whichever engine the caller brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidewheel.clock import utc_text
from tidewheel.errors import ContractViolation, InputError
from tidewheel.features.declaration import FeatureSet
from tidewheel.features.rows import TrainingRows
from tidewheel.features.vector import model_input
from tidewheel.findings import Finding
from tidewheel.spec.project import ModelProject
from tidewheel.training.frame import TrainingFrame, frame_of
from tidewheel.training.transforms import transforms_finding

Report = Callable[[int, int], None]


class FeatureEngine(Protocol):
    """What computes features and training rows over files; DuckDB on one machine."""

    def compute(
        self,
        features: FeatureSet,
        project: ModelProject,
        rows: pa.Table,
        sources: Mapping[str, Path],
        progress: Report | None = None,
    ) -> pa.Table: ...

    def training_rows(
        self, project: ModelProject, sources: Mapping[str, Path], start_us: int, end_us: int, as_of_us: int
    ) -> TrainingRows: ...


@dataclass(frozen=True, eq=False)
class Dataset:
    """``frame`` and ``event_ids`` [n] row by row; ``n_unmatched`` labels had no request and were left out."""

    frame: TrainingFrame
    event_ids: pa.ChunkedArray
    n_unmatched: int
    transforms: Finding | None = None  # why request functions cannot be served as they were trained


def labelled_dataset(
    engine: FeatureEngine,
    project: ModelProject,
    features: FeatureSet,
    sources: Mapping[str, Path],
    start_us: int,
    end_us: int,
    as_of_us: int,
    progress: Report | None = None,
    check_times: Callable[[NDArray[np.int64]], None] = lambda times_us: None,
) -> Dataset:
    """Rows with event time in [start, end) whose label is mature as of ``as_of_us``. Raises InputError for none.

    ``check_times`` sees the rows' event times before anything is computed, and may raise.
    """
    request = project.request_source
    event_id = request.event_id or ""
    found = engine.training_rows(project, sources, start_us, end_us, as_of_us)
    if not found.rows.num_rows:
        raise InputError(
            f"{project.name}: no labelled row between {utc_text(start_us)} and {utc_text(end_us)}, "
            f"labels mature as of {utc_text(as_of_us)}; send events and labels with 'tidewheel ingest'"
        )
    rows = found.rows.sort_by([(request.event_time, "ascending"), (event_id, "ascending")])
    check_times(rows[request.event_time].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy())
    # A request function may carry the name of a request column; rows are grouped by what was sent, not by the feature.
    wanted = (*project.entity_keys(), *project.training.gate.slices)
    grouping = {f"group.{name}": rows[name] for name in dict.fromkeys(wanted)}
    label, ids, times = rows["label"], rows[event_id], rows[request.event_time]
    table = engine.compute(features, project, rows.drop_columns(["label"]), sources, progress)
    made = {name: table[name] for name in features.names}
    columns = {**grouping, "time": times, "id": ids, "label": label}
    frame = frame_of(
        pa.table({**{f"x.{name}": values for name, values in made.items()}, **columns}),
        [f"x.{name}" for name in made],
        event_time="time",
        event_id="id",
        columns=list(grouping),
    )
    plain = {name.removeprefix("group."): values for name, values in frame.columns.items()}
    # As float32 now, not only when a model is given them: an engine that adds in parallel differs in the last bit of a
    # float64 from run to run, and equal data should give an equal bundle.
    x = model_input(frame.x).astype(np.float64)
    return Dataset(
        TrainingFrame(features.names, x, frame.y, frame.event_time_us, plain),
        ids,
        found.n_unmatched,
        transforms_finding(features, rows, pa.table(made)),
    )


def aligned(ids: pa.ChunkedArray, other_ids: pa.ChunkedArray, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``values`` of ``other_ids`` in the order of ``ids``. Raises ContractViolation where an id has none."""
    position = pc.index_in(ids.cast(pa.string()), value_set=other_ids.cast(pa.string()).combine_chunks())
    if position.null_count:
        raise ContractViolation(
            f"the champion's project sees {position.null_count} of {len(ids)} holdout rows not at all; "
            "its sources and this project's differ, so the two cannot be compared"
        )
    found: NDArray[np.float64] = values[position.to_numpy()]
    return found
