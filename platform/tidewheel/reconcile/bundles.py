"""Bundles in the home, by digest: fetched from the registry, verified, and what a document says of them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tidewheel.bundle.manifest import SIGNATURE, digest_of, read_plain, verify
from tidewheel.bundle.registry import ModelRegistry, Version
from tidewheel.bundle.signature import MAX_SIGNATURE_BYTES, SignatureRefused, Trust, check_signature, verify_trusted
from tidewheel.clock import SECOND_US, Clock
from tidewheel.deployment.document import Variant
from tidewheel.errors import ContractViolation, NotFound, SpecError
from tidewheel.findings import Finding
from tidewheel.spec.load import load_project
from tidewheel.whole_file import write_whole

DIGEST_TAG = "tidewheel.digest"
LOOK_FOR_A_SIGNATURE_US = 10 * SECOND_US  # after one was refused: somebody may sign meanwhile


class BundleStore:
    """``folder`` holds one folder per digest. Verified bundles and refused versions are remembered while it lives."""

    def __init__(self, folder: Path, trust: Trust, clock: Clock) -> None:
        self._folder, self._trust, self._clock = folder, trust, clock
        self._unsigned_at_us: dict[str, int] = {}
        self._offered: set[str] = set()
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
        self._renew_signature(registry, version)
        return self._read(version)

    def _read(self, version: Version) -> Variant | Finding | None:
        folder = self.path(version.digest)
        try:
            verify_trusted(folder, version.digest, self._trust())
            project = load_project(folder)
        except SignatureRefused as error:
            self._unsigned_at_us[version.digest] = self._clock.monotonic_us()
            return self._refuse(version, Finding(error.reason, str(error), "critical", version.number))
        except ContractViolation:
            shutil.rmtree(folder)  # damaged on this disk, not in the registry: it is fetched again
            return None
        except (SpecError, NotFound) as error:
            return self._refuse(version, Finding("BundleInvalid", str(error), "critical", version.number))
        variant = Variant(version.number, version.digest, dict(project.serving.decision))
        self._known[(version.number, version.digest)] = variant
        self._refused.pop(version.number, None)
        return variant

    def is_signed_anew(self, digest: str) -> bool:
        """True once for each signature that counts: a version that was refused for the one before may be tried."""
        mark = digest_of(read_plain(self.path(digest) / SIGNATURE, MAX_SIGNATURE_BYTES))
        if mark in self._offered:
            return False
        self._offered.add(mark)
        return True

    def signature_is_due(self, version: Version) -> bool:
        """Whether a version was refused for its signature, a while ago: a fetch looks whether somebody signed it."""
        at_us = self._unsigned_at_us.get(version.digest)
        return at_us is not None and self._clock.monotonic_us() - at_us >= LOOK_FOR_A_SIGNATURE_US

    def _renew_signature(self, registry: ModelRegistry, version: Version) -> None:
        """Take the registry's signature where the one that is here does not count and that one does."""
        self._unsigned_at_us.pop(version.digest, None)
        folder, trusted = self.path(version.digest), self._trust()
        try:
            verify_trusted(folder, version.digest, trusted)
        except SignatureRefused:
            data = registry.signature(version)
            if data is None:
                return
            try:
                check_signature(data, verify(folder, version.digest), version.digest, trusted, str(folder))
            except SignatureRefused:
                return
            write_whole(folder / SIGNATURE, data)

    def _refuse(self, version: Version, finding: Finding) -> Finding:
        self._refused[version.number] = (version.digest, finding)
        return finding

    def keep_refusals(self, numbers: Sequence[str]) -> None:
        """Forget the refusal of every other version: it may be tried again when it is asked for again."""
        self._refused = {number: told for number, told in self._refused.items() if number in numbers}
