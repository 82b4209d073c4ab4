"""Bundles and project code in the object store, by digest: ``bundles/<digest>/`` and ``projects/<digest>/``.

What lies there is nobody's word: who fetches compares it with the digest, and who uses it verifies its signature.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tidewheel.adapters.object_store import ObjectStore
from tidewheel.bundle.manifest import MANIFEST, MAX_MANIFEST_BYTES, SIGNATURE, parse_manifest, verify
from tidewheel.bundle.place import place
from tidewheel.bundle.signature import MAX_SIGNATURE_BYTES
from tidewheel.errors import ContractViolation, NotFound
from tidewheel.whole_file import write_whole

Kind = Literal["bundles", "projects"]


def put_bundle(store: ObjectStore, kind: Kind, folder: Path, digest: str) -> bool:
    """Keep the verified ``folder`` under its digest; whether anything was new.

    The manifest goes last, so that a folder that was half sent is sent again. Raises ContractViolation where the
    folder is not what the digest names.
    """
    entries = verify(folder, digest)
    at = f"{kind}/{digest}"
    signature = folder / SIGNATURE
    new = not store.has(f"{at}/{MANIFEST}")
    if new:
        for name in entries:
            store.put_file(f"{at}/{name}", folder / name)
    if signature.is_file() and (data := signature.read_bytes()) != _signature(store, at):
        store.put(f"{at}/{SIGNATURE}", data)
        new = True
    if new:
        store.put(f"{at}/{MANIFEST}", (folder / MANIFEST).read_bytes())
    return new


def fetch_bundle(store: ObjectStore, kind: Kind, digest: str, target: Path) -> None:
    """``target`` appears whole and equal to ``digest``, or not at all; its signature comes along, also a newer one.

    Raises NotFound where the store has no such bundle, ContractViolation where its bytes are others.
    """
    at = f"{kind}/{digest}"

    def fill(folder: Path) -> None:
        manifest = store.get(f"{at}/{MANIFEST}", MAX_MANIFEST_BYTES)
        entries = parse_manifest(manifest, digest, f"{store.name}/{at}")
        (folder / MANIFEST).write_bytes(manifest)
        for name, entry in entries.items():
            try:
                store.get_file(f"{at}/{name}", folder / name, entry.size_bytes)
            except NotFound as error:
                raise ContractViolation(f"{store.name}/{at}: {name} is missing") from error

    place(target, digest, fill)
    signature = _signature(store, at)
    if signature is not None and signature != _here(target):
        write_whole(target / SIGNATURE, signature)


def _signature(store: ObjectStore, at: str) -> bytes | None:
    try:
        return store.get(f"{at}/{SIGNATURE}", MAX_SIGNATURE_BYTES)
    except NotFound:
        return None


def _here(folder: Path) -> bytes | None:
    path = folder / SIGNATURE
    return path.read_bytes() if path.is_file() else None
