"""Bundles in the home, by digest: fetched from the registry, verified, and what a document says of them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tidewheel.bundle.manifest import verify
from tidewheel.bundle.registry import ModelRegistry, Version
from tidewheel.deployment.document import Variant
from tidewheel.errors import ContractViolation, NotFound, SpecError
from tidewheel.findings import Finding
from tidewheel.spec.load import load_project

DIGEST_TAG = "tidewheel.digest"


class BundleStore:
    """``folder`` holds one folder per digest. Verified bundles and refused versions are remembered while it lives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[str, str], Variant] = {}
        self._refused: dict[str, tuple[str, Finding]] = {}

    def path(self, digest: str) -> Path:
        return self._folder / digest

    def have(self, version: Version) -> Variant | Finding | None:
        """What is here of a version: its variant, why it is refused, or None where it is still to be fetched."""
        refused = self._refused.get(version.number)
        if refused is not None and refused[0] == version.digest:
            return refused[1]
        key = (version.number, version.digest)
        if key in self._known and self.path(version.digest).is_dir():
            return self._known[key]
        if not version.digest or not self.path(version.digest).is_dir():
            return None
        return self._read(version)

    def fetch(self, registry: ModelRegistry, version: Version) -> Variant | Finding | None:
        """Bring a version's bundle here. Raises Unavailable where the registry does not answer."""
        if version.tags.get(DIGEST_TAG) != version.digest or not version.digest:
            message = f"version {version.number} has no digest that was registered with it (tag {DIGEST_TAG})"
            return self._refuse(version, Finding("DigestMismatch", message, "critical", version.number))
        try:
            registry.download(version, self.path(version.digest))
        except ContractViolation as error:
            return self._refuse(version, Finding("DigestMismatch", str(error), "critical", version.number))
        except NotFound as error:
            return self._refuse(version, Finding("BundleInvalid", str(error), "critical", version.number))
        return self._read(version)

    def _read(self, version: Version) -> Variant | Finding | None:
        folder = self.path(version.digest)
        try:
            verify(folder, version.digest)
            project = load_project(folder)
        except ContractViolation:
            shutil.rmtree(folder)  # damaged on this disk, not in the registry: it is fetched again
            return None
        except (SpecError, NotFound) as error:
            return self._refuse(version, Finding("BundleInvalid", str(error), "critical", version.number))
        variant = Variant(version.number, version.digest, dict(project.serving.decision))
        self._known[(version.number, version.digest)] = variant
        return variant

    def _refuse(self, version: Version, finding: Finding) -> Finding:
        self._refused[version.number] = (version.digest, finding)
        return finding

    def keep_refusals(self, numbers: Sequence[str]) -> None:
        """Forget the refusal of every other version: it may be tried again when it is asked for again."""
        self._refused = {number: told for number, told in self._refused.items() if number in numbers}
