"""Where parts of the lake are written: a folder, or a bucket of an S3 server by ``s3://BUCKET/PREFIX``.

Credentials come from where AWS's own tools look: environment, files, the pod's role. Never from a URL.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from tidewheel.errors import InputError

CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S = 3.0, 30.0
FORMS = "a folder, or s3://BUCKET[/PREFIX] with ?endpoint=http://HOST:PORT and &region=NAME where they are needed"
_OPTIONS = {"endpoint", "region"}

WritePart = Callable[[str, pa.Table], None]


def part_writer(lake: str, *below: str) -> WritePart:
    """Writes parts into the folder ``below`` of a lake. Raises InputError for a URL that cannot be used."""
    if lake.startswith("s3:"):
        return _bucket_writer(lake, below)
    if "://" in lake:
        raise InputError(f"lake {lake!r}: unknown; allowed: {FORMS}")
    folder = Path(lake).joinpath(*below)
    return lambda name, table: write_file(table, folder / name)


def write_file(table: pa.Table, part: Path) -> None:
    """One Parquet file that appears whole, or not at all."""
    part.parent.mkdir(parents=True, exist_ok=True)
    temporary = part.with_name(f".{part.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(part)
    finally:
        temporary.unlink(missing_ok=True)


def _bucket_writer(url: str, below: tuple[str, ...]) -> WritePart:
    parts = urlsplit(url)
    options = parse_qs(parts.query)
    if not parts.hostname or parts.username or parts.password or set(options) - _OPTIONS:
        raise InputError(f"lake {parts.scheme}://{parts.hostname or ''}: cannot be used; allowed: {FORMS}")
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    endpoint = urlsplit(options.get("endpoint", [""])[0])
    system = S3FileSystem(
        region=options.get("region", ["us-east-1"])[0],
        endpoint_override=endpoint.netloc or None,
        scheme=endpoint.scheme or "https",
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=REQUEST_TIMEOUT_S,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=1),  # a segment is tried again as a whole
    )
    folder = "/".join((parts.netloc, *(one for one in parts.path.split("/") if one), *below))

    def write(name: str, table: pa.Table) -> None:
        # Whole in memory first: an upload that is given up leaves no object.
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, compression="zstd")
        with system.open_output_stream(f"{folder}/{name}") as stream:
            stream.write(buffer.getvalue())

    return write
