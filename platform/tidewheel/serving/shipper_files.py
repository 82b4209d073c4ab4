"""What a model server and its shipper tell each other, in files beside the spool."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tidewheel.whole_file import write_whole

COLUMNS, STATUS = "columns.json", "shipper.json"


class LoggedColumns(msgspec.Struct, frozen=True):
    """What a server's requests have, as its shipper needs to know: columns by name and spec type."""

    columns: dict[str, str]
    event_time: str = ""
    event_id: str = ""


class ShipperStatus(msgspec.Struct, frozen=True):
    """What became of a spool's records since the shipper started. ``torn_bytes`` were cut off segments' ends: never
    acknowledged. ``error`` is what the sink said last, empty where all is well."""

    shipped: int = 0
    failures: int = 0
    torn_bytes: int = 0
    error: str = ""


def write_columns(spool: Path, columns: LoggedColumns) -> None:
    write_whole(spool / COLUMNS, msgspec.json.encode(columns))


def read_columns(spool: Path) -> LoggedColumns | None:
    """None before a server has told them."""
    try:
        return msgspec.json.decode((spool / COLUMNS).read_bytes(), type=LoggedColumns)
    except (OSError, msgspec.DecodeError):
        return None


def read_status(spool: Path) -> ShipperStatus:
    """All zero before there is one."""
    try:
        return msgspec.json.decode((spool / STATUS).read_bytes(), type=ShipperStatus)
    except (OSError, msgspec.DecodeError):
        return ShipperStatus()


def write_status(spool: Path, status: ShipperStatus) -> None:
    write_whole(spool / STATUS, msgspec.json.encode(status))
