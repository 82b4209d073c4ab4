"""Ships closed spool segments into the lake as Parquet, exactly once each, and takes over spools of dead servers.

A part is named after its segment: a crash between the part's appearance and the segment's removal writes the same part
again. A sink that fails delays shipping and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tidewheel.serving.prediction_log import CLOSED_SUFFIX, OPEN_SUFFIX, lock_folder, segments
from tidewheel.serving.prediction_record import decode_frames
from tidewheel.serving.prediction_table import prediction_schema, to_table
from tidewheel.serving.shipper_files import LoggedColumns, ShipperStatus, read_columns, write_status

LOG = logging.getLogger("tidewheel.serving")

WritePart = Callable[[str, pa.Table], None]  # by its name; whole or not at all, and again where it is there


@dataclass
class Shipper:
    """Moves records from ``spool`` by ``write_part``. ``spool`` may be that of a living server."""

    spool: Path
    write_part: WritePart
    shipped: int = 0
    failures: int = 0
    torn_bytes: int = 0
    error: str = ""

    def ship(self) -> int:
        """Ship every closed segment, oldest first; the number of rows shipped."""
        found = segments(self.spool)
        columns = read_columns(self.spool) if found else None
        if columns is None:
            return 0
        return self._ship_all(found, _schema(columns))

    def adopt_orphans(self) -> int:
        """Ship what servers that no longer run left in spools beside this one."""
        columns, project, shipped = read_columns(self.spool), _project_of(self.spool), 0
        if columns is None:
            return 0
        for folder in sorted(self.spool.parent.glob(f"{project}-*")):
            if folder == self.spool or _project_of(folder) != project:
                continue
            if not any(path.suffix in (OPEN_SUFFIX, CLOSED_SUFFIX) for path in folder.iterdir()):
                continue
            if (owner := lock_folder(folder)) is None:
                continue
            try:
                for path in folder.glob(f"*{OPEN_SUFFIX}"):
                    path.rename(path.with_suffix(CLOSED_SUFFIX))
                shipped += self._ship_all(segments(folder), _schema(read_columns(folder) or columns))
            finally:
                os.close(owner)
        return shipped

    def tell(self) -> None:
        """Leave the status where the server finds it."""
        with contextlib.suppress(OSError):  # a full disk; the next time then
            write_status(self.spool, ShipperStatus(self.shipped, self.failures, self.torn_bytes, self.error))

    def _ship_all(self, found: list[Path], schema: pa.Schema) -> int:
        shipped = 0
        try:
            for path in found:
                shipped += self._ship_one(path, schema)
                self.error = ""
        except Exception as error:  # whatever it is, the segment stays and is tried again
            self.failures += 1
            said = f"{type(error).__name__}: {error}"
            if self.error != said:
                LOG.warning("event=ship_failed error=%s", said)
            self.error = said
        self.shipped += shipped
        return shipped

    def _ship_one(self, path: Path, schema: pa.Schema) -> int:
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # another shipper was faster
            return 0
        records, good = decode_frames(data)
        self.torn_bytes += len(data) - good
        if records:
            # In order of time, so that who follows the log need not list all of it.
            replica = path.parent.name.rsplit("-", 1)[-1]
            self.write_part(f"part-{path.stem}-{replica}.parquet", to_table(records, schema))
        path.unlink(missing_ok=True)
        return len(records)


def _schema(columns: LoggedColumns) -> pa.Schema:
    return prediction_schema(columns.columns, columns.event_time, columns.event_id)


def _project_of(folder: Path) -> str:
    return folder.name.rsplit("-", 1)[0]
