"""The lake in the object store and the part of it that a pod works on: Parquet parts that never change, copied by name.

A part's name says what it holds and it appears whole, so a copy is right as soon as it is there. Who writes parts (a
stream worker, a model server's shipper) sends them; who reads (a job, the controller during a rollout) fetches them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.object_store import ObjectStore, StoredObject, open_object_store
from tidewheel.errors import NotFound, Unavailable
from tidewheel.features.lake import end_of, lake_end

THREADS = 8
LOOKS = 5
MAX_PART_BYTES = 2 << 30
Told = Callable[[int, int], object]  # done, of


class LakeMirror:
    """Folders below ``root`` on this disk and below ``at`` in the store."""

    def __init__(self, store: ObjectStore, root: Path, at: str = "lake") -> None:
        self._store, self._root, self._at = store, root, at
        self._sent: dict[str, int] = {}  # size by path below the root

    def fetch(self, folder: str, after: str = "", told: Told = lambda done, of: None) -> list[Path]:
        """Bring the parts of ``folder`` that are not here; those behind the name ``after`` alone. The new files.

        Raises Unavailable; what was fetched stays.
        """
        start = f"{self._at}/{folder}/{after}" if after else ""
        fetched: list[Path] = []
        for _ in range(LOOKS):
            wanted = [one for one in self._store.list(f"{self._at}/{folder}", start) if not self._is_here(one)]
            with ThreadPoolExecutor(THREADS, "mirror") as threads:
                came = []
                for done, path in enumerate(threads.map(self._fetch, wanted), 1):
                    came.append(path)
                    told(done, len(wanted))
            fetched += [path for path in came if path is not None]
            if None not in came:
                return fetched
        raise Unavailable(f"{self._store.name}: {folder} changes faster than it can be fetched; try again")

    def names(self, folder: str) -> set[str]:
        """Parts of a folder in the store, by name."""
        return {one.key.rpartition("/")[2] for one in self._store.list(f"{self._at}/{folder}")}

    def send(self, folder: str) -> int:
        """Send what is here and was not sent yet; how many files. Raises Unavailable; what was sent stays."""
        n = 0
        for path in self._files(folder):
            name = str(path.relative_to(self._root))
            try:
                size_bytes = path.stat().st_size
                if self._sent.get(name) == size_bytes:
                    continue
                self._store.put_file(f"{self._at}/{name}", path)
            except FileNotFoundError:
                continue  # joined into a larger part meanwhile
            self._sent[name] = size_bytes
            n += 1
        return n

    def drop(self, folder: str, names: set[str]) -> None:
        """Remove parts from the store that a larger one replaces there."""
        for name in sorted(names):
            self._store.delete(f"{self._at}/{folder}/{name}")
            self._sent.pop(f"{folder}/{name}", None)

    def _files(self, folder: str) -> Iterator[Path]:
        for at, folders, names in os.walk(self._root / folder):
            folders.sort()
            yield from (Path(at) / name for name in sorted(names) if not name.startswith("."))

    def _is_here(self, one: StoredObject) -> bool:
        name = one.key.removeprefix(f"{self._at}/")
        if not _is_plain(name):
            return True  # nobody of ours wrote it
        try:
            here = (self._root / name).stat().st_size == one.size_bytes
        except FileNotFoundError:
            return False
        if here:
            self._sent[name] = one.size_bytes
        return here

    def _fetch(self, one: StoredObject) -> Path | None:
        name = one.key.removeprefix(f"{self._at}/")
        path = self._root / name
        try:
            self._store.get_file(one.key, path, MAX_PART_BYTES)
        except NotFound:
            return None  # replaced by a larger part since it was listed: that one is looked for
        self._sent[name] = one.size_bytes
        return path


def _is_plain(name: str) -> bool:
    return all(part and part[0] != "." for part in name.split("/"))


class LakeEnds:
    """How far the log's partitions are in the lake: this disk's, or the store's where one is named."""

    def __init__(self, home: LocalHome) -> None:
        store = open_object_store()
        self._home, self._mirror = home, LakeMirror(store, home.lake) if store is not None else None

    def of(self, folder: Path, partitions: int) -> list[int]:
        """The offset behind the last in the lake, by partition. Raises Unavailable."""
        if self._mirror is None:
            return [lake_end(folder, partition) for partition in range(partitions)]
        names = self._mirror.names(str(folder.relative_to(self._home.lake)))
        return [end_of(names, partition) for partition in range(partitions)]
