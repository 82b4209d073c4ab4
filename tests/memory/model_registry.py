"""A model registry in memory, for tests of what uses one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tidewheel.bundle.manifest import SIGNATURE, verify
from tidewheel.bundle.place import place
from tidewheel.bundle.registry import Version
from tidewheel.errors import ContractViolation, NotFound


class MemoryRegistry:
    """Keeps the bytes of bundles and everything else in dictionaries."""

    def __init__(self) -> None:
        self._versions: dict[str, list[Version]] = {}
        self._aliases: dict[str, dict[str, str]] = {}
        self._files: dict[str, dict[str, bytes]] = {}

    def register(
        self,
        name: str,
        bundle: Path,
        digest: str,
        *,
        tags: Mapping[str, str],
        metrics: Mapping[str, float],
        params: Mapping[str, str],
    ) -> Version:
        verify(bundle, digest)
        versions = self._versions.setdefault(name, [])
        for existing in versions:
            if existing.digest == digest:
                if (bundle / SIGNATURE).is_file():
                    self._files[digest].setdefault(SIGNATURE, (bundle / SIGNATURE).read_bytes())
                return existing
        self._files[digest] = {path.name: path.read_bytes() for path in bundle.iterdir()}
        number = str(len(versions) + 1)
        made = Version(name, number, digest, f"run-{number}", {**tags, "tidewheel.digest": digest}, len(versions))
        versions.append(made)
        return made

    def versions(self, name: str) -> tuple[Version, ...]:
        return tuple(self._versions.get(name, ()))

    def version(self, name: str, number: str) -> Version:
        for version in self._versions.get(name, ()):
            if version.number == number:
                return version
        raise NotFound(f"{name}: no version {number}; see 'tidewheel status'")

    def aliases(self, name: str, *, fresh: bool = False) -> dict[str, str]:
        return dict(self._aliases.get(name, {}))

    def set_alias(self, name: str, alias: str, number: str) -> None:
        self.version(name, number)
        self._aliases.setdefault(name, {})[alias] = number

    def delete_alias(self, name: str, alias: str) -> None:
        self._aliases.get(name, {}).pop(alias, None)

    def tag(self, name: str, number: str, key: str, value: str) -> None:
        old = self.version(name, number)
        versions = self._versions[name]
        versions[versions.index(old)] = replace(old, tags={**old.tags, key: value})

    def download(self, version: Version, target: Path) -> None:
        if not version.digest:
            raise ContractViolation(
                f"{version.name}: version {version.number} was not registered by tidewheel: it has no bundle digest"
            )

        def fill(folder: Path) -> None:
            for name, data in self._files[version.digest].items():
                (folder / name).write_bytes(data)

        place(target, version.digest, fill)

    def signature(self, version: Version) -> bytes | None:
        return self._files[version.digest].get(SIGNATURE)

    def put_signature(self, version: Version, data: bytes) -> None:
        self._files[version.digest][SIGNATURE] = data

    def corrupt(self, digest: str, name: str) -> None:
        """For tests: change one byte of a stored file."""
        data = self._files[digest][name]
        self._files[digest][name] = bytes([data[0] ^ 1]) + data[1:]


def copy_bundle(source: Path, target: Path) -> Path:
    """A copy of a bundle folder that a test may damage."""
    shutil.copytree(source, target)
    return target
