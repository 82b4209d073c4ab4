"""Source files of any kind -> normalised events in order of arrival, in bounded pieces.

For the engines over files: parts that the stream worker wrote pass as they are, anything else is validated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from tidewheel.errors import InputError
from tidewheel.features.events import OFFSET_COLUMN, validate_events
from tidewheel.features.lake import is_normalised, part_name, read_batches, source_files, write_parquet
from tidewheel.spec.project import ModelProject

__all__ = ["normalised_batches", "source_files", "write_normalised"]


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
