"""What a person holds in hand: a rollout that waits, an answer that travels."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidewheel.errors import InputError
from tidewheel.journal.ledger import Journal
from tidewheel.reconcile.answers import Answer
from tidewheel.reconcile.pauses import is_paused, set_paused


def test_the_newest_of_pause_and_resume_counts_and_repeating_it_adds_nothing(tmp_path: Path) -> None:
    journal = Journal(f"sqlite:///{tmp_path / 'journal.db'}")
    assert not is_paused(journal, "tiny")
    assert not set_paused(journal, "tiny", False, actor="ada", reason="it goes already")
    assert set_paused(journal, "tiny", True, actor="ada", reason="sale tonight")
    assert not set_paused(journal, "tiny", True, actor="ada", reason="again")
    assert is_paused(journal, "tiny")
    assert not is_paused(journal, "other")
    assert set_paused(journal, "tiny", False, actor="ada", reason="sale is over")
    assert not is_paused(journal, "tiny")
    kinds = [(entry.kind, entry.actor, entry.reason) for entry in journal.entries("tiny")]
    assert kinds == [("rollout-paused", "ada", "sale tonight"), ("rollout-resumed", "ada", "sale is over")]


def test_an_answer_arrives_as_it_was_given() -> None:
    answer = Answer("refuse", "promote-20260309T000000Z-v2", "ada", "declines doubled")
    assert Answer.from_json(answer.to_json()) == answer


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"verb": "maybe", "decision": "d", "actor": "a", "reason": "r"}',
             '{"verb": "approve", "decision": "d", "actor": "a", "reason": ""}'],
)  # fmt: skip
def test_what_is_no_answer_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        Answer.from_json(text)
