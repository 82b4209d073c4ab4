"""Signs versions that are registered already: those from before signatures, or with a new key.

Called by ``tidewheel sign``. May be killed and run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tidewheel.bundle.manifest import SIGNATURE, verify
from tidewheel.bundle.place import scratch
from tidewheel.bundle.registry import ModelRegistry, Version
from tidewheel.bundle.signature import SigningKey, TrustedKeys, check_signature, signature_of
from tidewheel.errors import ContractViolation, NotFound
from tidewheel.whole_file import write_whole


def sign_versions(
    registry: ModelRegistry, name: str, numbers: Sequence[str], bundles: Path, key: SigningKey
) -> tuple[Version, ...]:
    """Sign versions ``numbers`` (all that have a digest where it is empty) in the registry and in ``bundles``.

    Bytes that are not what was registered are not signed. Returns those whose signature is new. Raises NotFound for an
    unknown version, ContractViolation for a damaged one; the versions before it are signed then.
    """
    found = [registry.version(name, number) for number in numbers] or [v for v in registry.versions(name) if v.digest]
    if not found:
        raise NotFound(f"{name}: no version is registered; run 'tidewheel train'")
    return tuple(version for version in found if _sign(registry, version, bundles, key))


def _sign(registry: ModelRegistry, version: Version, bundles: Path, key: SigningKey) -> bool:
    with scratch(bundles) as folder:
        fetched = folder / version.digest
        registry.download(version, fetched)
        known = registry.signature(version)
        fresh = known is None or not _is_by(known, version, fetched, key)
        data = signature_of(fetched, version.digest, key) if fresh or known is None else known
    if fresh:
        registry.put_signature(version, data)
    here = bundles / version.digest
    if here.is_dir():
        write_whole(here / SIGNATURE, data)
    return fresh


def _is_by(data: bytes, version: Version, folder: Path, key: SigningKey) -> bool:
    trusted = TrustedKeys((key.public,), "the key that signs")
    try:
        check_signature(data, verify(folder, version.digest), version.digest, trusted, version.number)
    except ContractViolation:
        return False
    return True
