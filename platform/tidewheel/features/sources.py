"""Source files of any kind -> normalised events in order of arrival, in bounded pieces.

For the engines over files: parts that the stream worker wrote pass as they are, anything else is validated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidewheel.errors import InputError
from tidewheel.features.batches import text_array
from tidewheel.features.events import OFFSET_COLUMN, validate_events
from tidewheel.features.keys import hashed_ids
from tidewheel.features.lake import is_normalised, part_name, read_batches, source_files, write_parquet
from tidewheel.spec.project import ModelProject

__all__ = ["normal_files", "normalised_batches", "source_files", "write_normalised"]

ID_HASH_COLUMN = "_id_hash"  # int64 hash of the event id: orders events of one time


def normalised_batches(
    files: Collection[Path], name: str, project: ModelProject, keys: Collection[str]
) -> Iterator[pa.Table]:
    """Normalised events with their offset. Raises InputError, naming the file, where a row cannot be used."""
    offset = 0
    for file in files:
        ready = is_normalised(file)
        for table in read_batches(file):
            if ready:
                yield table
                continue
            try:
                checked = validate_events(table, name, project, keys=keys)
            except InputError as error:
                raise InputError(f"{file}: {error}") from error
            if checked.rejected.num_rows:
                reason = checked.rejected.column("reason")[0].as_py()
                raise InputError(
                    f"{file}: {checked.rejected.num_rows} row(s) cannot be used; the first: {reason}; "
                    f"'tidewheel ingest' keeps the good rows and sets the others aside"
                )
            offsets = np.arange(offset, offset + table.num_rows)
            offset += table.num_rows
            yield checked.good.append_column(OFFSET_COLUMN, pa.array(offsets))


def write_normalised(batches: Iterator[pa.Table], folder: Path) -> list[Path]:
    """Write the batches as Parquet files; their paths in order."""
    files = []
    for number, table in enumerate(batches):
        path = folder / part_name(number, number + 1)
        write_parquet(path, table)
        files.append(path)
    return files


def normal_files(
    files: Sequence[Path], name: str, project: ModelProject, keys: Collection[str], folder: Path, *, hashed: bool
) -> list[Path]:
    """Normalised Parquet files of a source: those given where they are such, else written to ``folder``.

    ``hashed`` adds the event id's hash, where the files do not have it.
    """
    if all(is_normalised(file) for file in files) and not (hashed and any(map(_lacks_hash, files))):
        return list(files)
    event_id = project.sources[name].event_id or ""
    batches = normalised_batches(files, name, project, keys)
    return write_normalised((_with_hash(table, event_id) if hashed else table for table in batches), folder)


def _lacks_hash(file: Path) -> bool:
    return ID_HASH_COLUMN not in pq.read_schema(file).names


def _with_hash(table: pa.Table, event_id: str) -> pa.Table:
    if ID_HASH_COLUMN in table.column_names:
        return table
    hashes = hashed_ids(text_array(table.column(event_id))).view(np.int64)
    return table.append_column(ID_HASH_COLUMN, pa.array(hashes))


def has_rows(path: Path) -> bool:
    """Whether a file, or any of a folder, has a row. Raises InputError where one cannot be read."""
    return any(batch.num_rows for file in source_files(path) for batch in read_batches(file, 1024))


def named_paths(given: Collection[str], project: ModelProject) -> dict[str, Path]:
    """``NAME=PATH`` arguments as paths by source. Raises InputError with what is allowed."""
    paths: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise InputError(f"--source: must be NAME=PATH (got {text!r})")
        if name not in project.sources:
            raise InputError(f"--source: unknown source {name!r}; declared are {', '.join(project.sources)}")
        if name in paths:
            raise InputError(f"--source: {name!r} is given twice")
        if not Path(path).exists():
            raise InputError(f"--source: {path}: no such file or folder")
        paths[name] = Path(path)
    return paths
