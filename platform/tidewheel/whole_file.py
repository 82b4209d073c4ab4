"""Write a small file whole: readers see the old bytes or the new ones, never a part; a crash leaves the old ones."""

from __future__ import annotations

import os
from pathlib import Path

from tidewheel.errors import naming


def write_whole(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``, folders made as needed. OSErrors name ``path``, not the temporary file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path), temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
