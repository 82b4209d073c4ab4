"""Requests that were really made, to make again: rows of a file, of the lake or of the prediction log."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidewheel.errors import naming
from tidewheel.features.lake import read_batches
from tidewheel.records import REQUEST_PREFIX

_ASKED = ("champion", "canary", "fallback")  # one row per request that a caller made of the online features


def newest_rows(path: Path, n: int) -> pa.Table:
    """The last ``n`` rows of a file or a folder, in order; an empty table where there is none."""
    if not path.exists():
        return pa.table({})
    pieces = [piece for piece in read_batches(path) if piece.num_rows]
    return pa.concat_tables(pieces, promote_options="default")[-n:] if pieces else pa.table({})


def newest_logged(folder: Path, n: int) -> pa.Table:
    """The requests of the log's newest ``n`` answers, under the columns' own names."""
    found: list[pa.Table] = []
    rows = 0
    for part in sorted(folder.glob("part-*.parquet"), key=lambda one: one.stat().st_mtime_ns, reverse=True):
        with naming(part):
            file = pq.ParquetFile(part)
            names = [name for name in file.schema_arrow.names if name.startswith(REQUEST_PREFIX)]
            table = file.read(columns=[*names, "role"])
        kept = table.filter(pc.is_in(table["role"], value_set=pa.array(_ASKED))).select(names)
        found.append(kept.rename_columns([name.removeprefix(REQUEST_PREFIX) for name in names]))
        rows += kept.num_rows
        if rows >= n:
            break
    return pa.concat_tables(reversed(found), promote_options="permissive")[-n:] if rows else pa.table({})
