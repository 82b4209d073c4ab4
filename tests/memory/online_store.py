"""The online store in a dict: the twin that unit tests use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tidewheel.features.ports import Progress


def _checked(value: bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"a value must be bytes (got {type(value).__name__})")
    return value


class MemoryOnlineStore:
    """Nothing is written until a write is whole, like the real ones."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, bytes], bytes] = {}
        self.told: dict[str, Progress] = {}

    def read(self, lookups: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        return [self.items.get(lookup) for lookup in lookups]

    def write(self, state_id: str, items: Mapping[bytes, bytes], progress: Progress) -> None:
        self.items.update({(state_id, key): _checked(value) for key, value in items.items()})
        self.told[state_id] = progress

    def progress(self, state_ids: Sequence[str]) -> dict[str, Progress]:
        return {state_id: self.told[state_id] for state_id in state_ids if state_id in self.told}

    def close(self) -> None:
        return None
