"""The events that a served row could know: those before the position its state had reached in the log.

Each row becomes an entity of its own, with copies of just its known events, so that any offline engine answers "what
was right then" without knowing about positions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidewheel.features.declaration import BatchView, WindowedView
from tidewheel.features.events import OFFSET_COLUMN
from tidewheel.features.lake import write_part
from tidewheel.monitoring.parquet_window import ParquetFolder

Ints = NDArray[np.int64]


def write_known(
    view: WindowedView | BatchView, rows: pa.Table, t_us: Ints, positions: Ints, lake: ParquetFolder, into: Path
) -> pa.Table:
    """``rows`` under keys of their own, and in ``into`` the events that each knew at its position [n]."""
    asked = _texts(rows, view)
    events = _events_of(view, set(asked), t_us, lake)
    owners = _texts(events, view)
    order = np.argsort(np.array(owners, dtype=object), kind="stable") if owners else np.zeros(0, dtype=np.int64)
    grouped = np.array(owners, dtype=object)[order]
    offsets = np.asarray(events[OFFSET_COLUMN].to_numpy(), dtype=np.int64)
    takes: list[Ints] = []
    for text, position in zip(asked, positions.tolist(), strict=True):
        first, last = np.searchsorted(grouped, text, "left"), np.searchsorted(grouped, text, "right")
        mine = order[first:last]
        takes.append(mine[offsets[mine] < position])
    row_of = np.repeat(np.arange(len(takes)), [len(one) for one in takes])
    copies = events.take(pa.array(np.concatenate(takes) if takes else np.zeros(0, dtype=np.int64)))
    copies = _rekeyed(copies, view, row_of)
    # A part is in order of arrival; copies of different rows never meet, so their offsets may repeat.
    write_part(into, 0, copies.sort_by(OFFSET_COLUMN), max(copies.num_rows, 1))
    return _rekeyed(rows, view, np.arange(rows.num_rows))


def _events_of(view: WindowedView | BatchView, wanted: set[str], t_us: Ints, lake: ParquetFolder) -> pa.Table:
    start_us, end_us = int(t_us.min()) - view.state.retention_us - 1, int(t_us.max())
    pieces: list[pa.Table] = []
    for table in lake.every_column(start_us, end_us):
        owned = pa.array([text in wanted for text in _texts(table, view)], pa.bool_())
        kept = table.filter(owned)
        if kept.num_rows or not pieces:
            pieces.append(kept)
    return pa.concat_tables(pieces, promote_options="permissive") if pieces else _nothing(view)


def _nothing(view: WindowedView | BatchView) -> pa.Table:
    kinds = {"int64": pa.int64(), "string": pa.string()}
    empty = {column: pa.array([], kinds[kind]) for column, kind in view.state.keys}
    return pa.table({**empty, OFFSET_COLUMN: pa.array([], pa.int64())})


def _texts(table: pa.Table, view: WindowedView | BatchView) -> list[str]:
    """Each row's entity as one text; a row without the whole key has an empty one."""
    parts = [pc.fill_null(table[column].cast(pa.string()), "") for column in view.keys]
    if len(parts) == 1:
        return [str(one) for one in parts[0].to_pylist()]
    return ["\x1f".join(one) for one in zip(*(part.to_pylist() for part in parts), strict=True)]


def _rekeyed(table: pa.Table, view: WindowedView | BatchView, row_of: Ints) -> pa.Table:
    for column, kind in view.state.keys:
        numbers = pa.array(row_of, pa.int64())
        new = numbers if kind == "int64" else numbers.cast(pa.string())
        table = table.set_column(table.column_names.index(column), column, new)
    return table
