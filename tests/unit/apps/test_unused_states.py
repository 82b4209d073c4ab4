"""States that nothing wants go after a while, and not while anything is unclear."""

from __future__ import annotations

from typing import Any

import pytest

from contract.test_online_store import AT_START, OTHER, S, read, rows, state
from memory.online_store import MemoryOnlineStore
from tidewheel.apps.unused_states import UNUSED_US, UnusedStates

ELSEWHERE = state("s", "another")


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at_us = 1_000_000

    def now_us(self) -> int:
        return self.at_us

    def monotonic_us(self) -> int:
        return self.at_us


@pytest.fixture
def store() -> MemoryOnlineStore:
    made = MemoryOnlineStore()
    for one in (S, OTHER, ELSEWHERE):
        made.write(one, 0, rows(1, k1=b"1"), AT_START)
    return made


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def told() -> list[Any]:
    return []


@pytest.fixture
def unused(store: MemoryOnlineStore, clock: Hand, told: list[Any]) -> UnusedStates:
    return UnusedStates(store, clock, lambda event, **fields: told.append((event, fields)))


def test_a_state_goes_when_nothing_wanted_it_for_a_while(unused, store, clock, told):
    unused.look([S, OTHER, ELSEWHERE], True)
    clock.at_us += UNUSED_US
    unused.look([OTHER, ELSEWHERE], True)
    clock.at_us += UNUSED_US - 1
    unused.look([OTHER, ELSEWHERE], True)
    assert read(store, S, 1) == [b"1"]
    clock.at_us += 1
    unused.look([OTHER, ELSEWHERE], True)
    assert [read(store, one, 1) for one in (S, OTHER, ELSEWHERE)] == [[None], [b"1"], [b"1"]]
    assert told == [("states_removed", {"project": "tiny", "states": [S.feast_view]})]


def test_a_state_that_is_wanted_again_stays(unused, store, clock):
    unused.look([OTHER], True)
    clock.at_us += UNUSED_US - 1
    unused.look([S, OTHER], True)
    clock.at_us += UNUSED_US
    unused.look([S, OTHER], True)
    assert read(store, S, 1) == [b"1"]


def test_nothing_goes_while_some_code_cannot_be_read(unused, store, clock):
    for complete in (True, False, True):
        unused.look([OTHER], complete)
        clock.at_us += UNUSED_US - 1
    unused.look([OTHER], True)
    assert read(store, S, 1) == [b"1"]


def test_a_project_that_wants_nothing_is_left_alone(unused, store, clock):
    for _ in range(3):
        unused.look([ELSEWHERE], True)
        clock.at_us += UNUSED_US
    assert read(store, S, 1) == [b"1"]


def test_the_store_is_asked_once(unused, store, clock, monkeypatch):
    asked = []
    monkeypatch.setattr(store, "keep_only", lambda project, states: asked.append(project) or [])
    for _ in range(4):
        unused.look([S], True)
        clock.at_us += UNUSED_US
    assert asked == ["tiny"]
