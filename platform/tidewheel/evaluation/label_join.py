"""Joins predictions with the labels that came later, by event id.

Called by the monitor. A label is mature ``delay_us`` after the event it judges; younger ones are left alone, even
where they are there already, because the early ones are not a fair sample (fraud is often reported first).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class LabelJoin:
    """``row`` int64 [m] are positions in the predictions that got a label, ``label`` int8 [m] their labels.

    ``n_mature`` predictions are old enough; ``n_unmatched`` of them have no label; ``n_immature`` are too young;
    ``n_repeated`` labels came again for an event that has one (the first arrival wins).
    """

    row: NDArray[np.int64]
    label: NDArray[np.int8]
    n_mature: int
    n_unmatched: int
    n_immature: int
    n_repeated: int


def join_labels(
    prediction_ids: pa.Array | pa.ChunkedArray,
    prediction_times_us: NDArray[np.int64],
    label_ids: pa.Array | pa.ChunkedArray,
    labels: pa.Array | pa.ChunkedArray,
    *,
    delay_us: int,
    as_of_us: int,
) -> LabelJoin:
    """``prediction_times_us`` is the event time; labels are in order of arrival, null ones are no labels.

    A prediction at t is mature when t <= as_of_us - delay_us. Ids are compared as text, since a log keeps them so.
    Several predictions of one event (shadow, canary) each get its label.
    """
    ids = _text(label_ids)
    values = _numbers(labels)
    known = pc.and_(pc.is_valid(ids), pc.is_valid(values))
    ids, values = ids.filter(known), values.filter(known)
    distinct = pa.table({"id": ids, "at": pa.array(np.arange(len(ids)))}).group_by("id").aggregate([("at", "min")])
    mature = prediction_times_us <= as_of_us - delay_us
    found = pc.index_in(_text(prediction_ids), value_set=distinct["id"].combine_chunks())
    position = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    matched = mature & (position >= 0)
    row = np.flatnonzero(matched).astype(np.int64)
    first = distinct["at_min"].to_numpy()[position[row]]
    label = values.to_numpy(zero_copy_only=False)[first].astype(np.int8)
    n_mature = int(mature.sum())
    return LabelJoin(
        row=row,
        label=label,
        n_mature=n_mature,
        n_unmatched=n_mature - len(row),
        n_immature=len(mature) - n_mature,
        n_repeated=len(ids) - len(distinct),
    )


def _flat(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _text(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return _flat(values).cast(pa.string())


def _numbers(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return _flat(values).cast(pa.int8())
