"""The registry port: versions of models, their bundles, and the aliases that say what serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

CHAMPION = "champion"  # what serves
CHALLENGER = "challenger"  # asks for a rollout


@dataclass(frozen=True)
class Version:
    """One registered version. ``number`` is the registry's own, as text; ``digest`` names its bundle."""

    name: str
    number: str
    digest: str
    run_id: str
    tags: Mapping[str, str] = field(default_factory=dict)
    created_at_us: int = 0


class ModelRegistry(Protocol):
    """Every method raises Unavailable when the registry does not answer within its time-out."""

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
        """Idempotent by digest: a bundle that is registered already gives the version it has.

        The folder's signature goes with it; a registered bundle without one gets it. Raises ContractViolation where
        the folder is not the bundle the digest names.
        """
        ...

    def versions(self, name: str) -> tuple[Version, ...]:
        """Oldest first; empty where the model does not exist."""
        ...

    def version(self, name: str, number: str) -> Version:
        """Raises NotFound."""
        ...

    def aliases(self, name: str, *, fresh: bool = False) -> dict[str, str]:
        """Alias to version number; empty where the model does not exist. ``fresh``: as of now, not of some seconds
        ago."""
        ...

    def set_alias(self, name: str, alias: str, number: str) -> None:
        """The last writer wins. Raises NotFound where the version does not exist."""
        ...

    def delete_alias(self, name: str, alias: str) -> None:
        """Deleting an alias that is not there does nothing."""
        ...

    def tag(self, name: str, number: str, key: str, value: str) -> None:
        """Set one tag of a version. Raises NotFound where it does not exist."""
        ...

    def download(self, version: Version, target: Path) -> None:
        """``target`` appears whole and verified, or not at all; a verified target is left as it is. The signature
        comes along as it is: who uses the bundle verifies it.

        Raises ContractViolation where the bytes are not those of ``version.digest``, NotFound where they are gone.
        """
        ...

    def signature(self, version: Version) -> bytes | None:
        """The bytes of the version's ``model.sig``, None where it has none. They are nobody's word yet."""
        ...

    def put_signature(self, version: Version, data: bytes) -> None:
        """Keep ``data`` as the version's signature, in place of one that is there."""
        ...
