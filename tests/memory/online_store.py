"""The online store in a dict: the twin that unit tests use."""

from __future__ import annotations

from collections.abc import Sequence

from tidewheel.features.declaration import StateView
from tidewheel.features.ports import Progress, StateRows, Wanted


class MemoryOnlineStore:
    """Nothing is written until a write is whole, like the real ones."""

    def __init__(self) -> None:
        self.states: dict[str, StateView] = {}
        self.items: dict[tuple[str, bytes], tuple[int, bytes]] = {}  # (position, blob)
        self.told: dict[str, dict[int, Progress]] = {}

    def read(self, wanted: Wanted) -> list[list[bytes | None]]:
        return [[self.items.get((state.state_id, key), (0, None))[1] for key in keys] for state, keys in wanted]

    def write(self, state: StateView, partition: int, rows: StateRows, progress: Progress) -> None:
        if not all(isinstance(blob, bytes) for blob in rows.blobs):
            raise TypeError("a blob must be bytes")
        self.states[state.state_id] = state
        for key, blob, position in zip(rows.keys, rows.blobs, rows.positions.tolist(), strict=True):
            if position > self.items.get((state.state_id, key), (-1, b""))[0]:
                self.items[(state.state_id, key)] = (position, blob)
        told = self.told.setdefault(state.state_id, {})
        if partition not in told or progress.position >= told[partition].position:
            told[partition] = progress

    def progress(self, states: Sequence[StateView]) -> dict[str, dict[int, Progress]]:
        return {state.state_id: dict(self.told[state.state_id]) for state in states if state.state_id in self.told}

    def keep_only(self, project: str, states: Sequence[StateView]) -> list[str]:
        kept = {state.state_id for state in states}
        gone = [state for state in self.states.values() if state.project == project and state.state_id not in kept]
        for state in gone:
            del self.states[state.state_id], self.told[state.state_id]
        ids = {state.state_id for state in gone}
        self.items = {at: item for at, item in self.items.items() if at[0] not in ids}
        return sorted(state.feast_view for state in gone)

    def close(self) -> None:
        return None
