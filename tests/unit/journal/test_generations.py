"""Compare-and-set of generations, and many who try at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tidewheel.clock import FixedClock
from tidewheel.errors import Conflict
from tidewheel.journal.generations import Generation
from tidewheel.journal.ledger import Journal

WRITERS, ROUNDS = 16, 5


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'journal.db'}"


def test_the_head_moves_by_one_and_the_ledger_says_so(url: str) -> None:
    journal = Journal(url, FixedClock(7))
    assert journal.head("fraud") is None
    made = journal.swap("fraud", 0, {"champion": "1"}, actor="ada", reason="first")
    assert made == Generation("fraud", 1, {"champion": "1"}, "ada", "first", 7) == journal.head("fraud")
    journal.swap("fraud", 1, {"champion": "2"})
    journal.swap("other", 0, {"champion": "1"})
    assert [one.body["champion"] for one in journal.generations("fraud", newest_first=True)] == ["2", "1"]
    assert [entry.body["generation"] for entry in journal.entries("fraud", kind="generation")] == [1, 2]
    journal.verify_chain()


@pytest.mark.parametrize("expected", [pytest.param(0, id="behind"), pytest.param(2, id="ahead")])
def test_an_expectation_that_is_not_the_head_is_a_conflict(url: str, expected: int) -> None:
    journal = Journal(url)
    journal.swap("fraud", 0, {})
    with pytest.raises(Conflict, match=rf"the head is 1 \(expected {expected}\)"):
        journal.swap("fraud", expected, {})
    assert len(journal.generations("fraud")) == len(journal.entries("fraud")) == 1


def test_of_sixteen_writers_exactly_one_wins_each_generation(url: str) -> None:
    """Each writer has its own connections, as processes have; the file does not exist when they start."""
    start = threading.Barrier(WRITERS)
    wins: list[tuple[int, int]] = []
    faults: list[BaseException] = []

    def write(number: int) -> None:
        try:
            start.wait()
            with Journal(url) as journal:
                for expected in range(ROUNDS):
                    start.wait()
                    try:
                        journal.swap("fraud", expected, {"writer": number})
                        wins.append((expected, number))
                    except Conflict:
                        pass
        except BaseException as error:
            faults.append(error)
            start.abort()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    journal = Journal(url)
    assert sorted(expected for expected, _ in wins) == list(range(ROUNDS))
    assert [one.body["writer"] for one in journal.generations("fraud")] == [number for _, number in sorted(wins)]
    journal.verify_chain()
