"""The manifest of a folder and the one digest over it.

The digest is the SHA-256 of MANIFEST.json, which holds size and SHA-256 of every other file. Written when a bundle
(or an applied project) is made; verified by every process before it parses or runs anything in the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tidewheel.errors import ContractViolation, InputError
from tidewheel.whole_file import write_whole

MANIFEST = "MANIFEST.json"
SIGNATURE = "model.sig"  # over the manifest and so no part of it
FORMAT = 1
MAX_MANIFEST_BYTES = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """What the manifest says about one file; ``sha256`` in hex."""

    sha256: str
    size_bytes: int


def write_manifest(folder: Path) -> str:
    """Write ``folder/MANIFEST.json`` over the plain files there and return the folder's digest (hex).

    Files and manifest are flushed to the disk. Raises InputError for anything that is not a plain file.
    """
    entries: dict[str, FileEntry] = {}
    for path in sorted(folder.iterdir()):
        if path.name in (MANIFEST, SIGNATURE):
            continue
        if path.is_symlink() or not path.is_file() or not _NAME.fullmatch(path.name):
            raise InputError(f"{path}: not a plain file with a plain name; a bundle is flat and holds nothing else")
        entries[path.name] = _entry(path, sync=True)
    data = manifest_bytes(entries)
    write_whole(folder / MANIFEST, data)
    return digest_of(data)


def manifest_bytes(entries: Mapping[str, FileEntry]) -> bytes:
    """The canonical bytes of a manifest: sorted keys, no spaces, one newline at the end."""
    files = {name: {"sha256": entry.sha256, "size": entry.size_bytes} for name, entry in entries.items()}
    return json.dumps({"files": files, "format": FORMAT}, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def digest_of(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def parse_manifest(data: bytes, digest: str, where: str) -> dict[str, FileEntry]:
    """The entries of manifest bytes whose digest is right. Raises ContractViolation."""
    if not _DIGEST.fullmatch(digest):
        raise ContractViolation(f"{where}: not a digest (got {digest!r}); it is 64 hex digits")
    if digest_of(data) != digest:
        raise ContractViolation(f"{where}: digest is {digest_of(data)[:12]} but {digest[:12]} was registered")
    try:
        body = json.loads(data)
        if body["format"] != FORMAT:
            raise ContractViolation(f"{where}: bundle format {body['format']!r}; this version reads {FORMAT}")
        entries = {str(name): FileEntry(str(file["sha256"]), int(file["size"])) for name, file in body["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContractViolation(f"{where}: {MANIFEST} cannot be read: {error!r}") from error
    bad = [name for name in entries if not _NAME.fullmatch(name) or name in (MANIFEST, SIGNATURE)]
    if bad:
        raise ContractViolation(f"{where}: {MANIFEST} names a file that may not be in a bundle (got {bad[0]!r})")
    return entries


def verify(folder: Path, digest: str) -> dict[str, FileEntry]:
    """Check that ``folder`` is exactly what ``digest`` names and return its entries.

    Nothing but the manifest is parsed, and that only after its digest matched. Raises ContractViolation with every
    missing, extra, linked and changed file. A signature may lie beside the files; it is not looked at here.
    """
    path = folder / MANIFEST
    try:
        data = read_plain(path, MAX_MANIFEST_BYTES)
    except (OSError, ContractViolation) as error:
        raise ContractViolation(f"{folder}: not a bundle: no readable {MANIFEST}") from error
    entries = parse_manifest(data, digest, str(folder))
    present = {entry.name: entry for entry in os.scandir(folder)}
    problems = [f"{name} is missing" for name in sorted(entries.keys() - present.keys())]
    problems += [
        f"{name} does not belong there" for name in sorted(present.keys() - entries.keys() - {MANIFEST, SIGNATURE})
    ]
    for name in sorted(entries.keys() & present.keys()):
        if not present[name].is_file(follow_symlinks=False):
            problems.append(f"{name} is not a plain file")
        elif _entry(folder / name) != entries[name]:
            problems.append(f"{name} was changed")
    if problems:
        raise ContractViolation(f"{folder}: not the bundle {digest[:12]}: {'; '.join(problems)}")
    return entries


def read_plain(path: Path, max_bytes: int) -> bytes:
    """A small file that is no link. Raises OSError, and ContractViolation for what is not plain or too large."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
            raise ContractViolation(f"{path}: not a plain file of at most {max_bytes} bytes")
        return file.read(max_bytes + 1)


def _entry(path: Path, *, sync: bool = False) -> FileEntry:
    # O_NOFOLLOW: a file swapped for a link between the listing and this line is refused, not followed
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if sync:
            os.fsync(file.fileno())
        return FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size)
