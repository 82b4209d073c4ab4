"""Removes online states that no code in force has asked for in a while: the worker calls ``look`` when it refreshes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tidewheel.clock import SECOND_US, Clock
from tidewheel.features.declaration import StateView
from tidewheel.features.ports import OnlineStore

UNUSED_US = 600 * SECOND_US

Tell = Callable[..., None]


class UnusedStates:
    """A rollback within UNUSED_US finds its states as they were; later ones are filled again from the log."""

    def __init__(self, store: OnlineStore, clock: Clock, tell: Tell) -> None:
        self._store, self._clock, self._tell = store, clock, tell
        self._since: dict[str, tuple[frozenset[str], int]] = {}  # by project: its states, and since when
        self._removed: dict[str, frozenset[str]] = {}

    def look(self, states: Sequence[StateView], complete: bool) -> None:
        """``states`` are all that are wanted now; not ``complete`` where some code could not be read, so that nothing
        is known about what it wants. Removes what was not wanted for UNUSED_US. Raises Unavailable."""
        now_us = self._clock.monotonic_us()
        if not complete:
            self._since.clear()
            return
        for project in dict.fromkeys(state.project for state in states):
            mine = frozenset(state.state_id for state in states if state.project == project)
            if self._since.get(project, (frozenset(), 0))[0] != mine:
                self._since[project] = (mine, now_us)
            elif now_us - self._since[project][1] >= UNUSED_US and self._removed.get(project) != mine:
                gone = self._store.keep_only(project, [state for state in states if state.project == project])
                self._removed[project] = mine
                if gone:
                    self._tell("states_removed", project=project, states=gone)
