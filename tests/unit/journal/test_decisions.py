"""Decisions: recorded once, moved only along allowed ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidewheel.clock import FixedClock, parse_utc
from tidewheel.errors import Conflict, NotFound
from tidewheel.findings import Decision, Finding
from tidewheel.journal.decisions import DecisionRecord
from tidewheel.journal.ledger import Journal

AS_OF = parse_utc("2026-03-09")
ID = "retrain-20260309T000000Z"
RETRAIN = Decision("retrain", (Finding("CadenceDue", "every 7d", "info", value=1.5),))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(f"sqlite:///{tmp_path / 'journal.db'}", FixedClock(3))


def test_a_decision_comes_back_whole(journal: Journal) -> None:
    made = journal.record_decision("fraud", "retrain", AS_OF, RETRAIN, "pending", {"n": 1})
    assert made == DecisionRecord(
        "fraud",
        ID,
        "retrain",
        AS_OF,
        RETRAIN,
        "pending",
        {"n": 1},
        "policy",
        "retrain: CadenceDue: every 7d",
        None,
        3,
        3,
    )
    assert journal.decision(ID) == made
    assert journal.decisions("fraud", kind="retrain", state="pending") == (made,)
    assert journal.decisions("fraud", state="approved") == ()


def test_the_first_record_of_an_id_stays(journal: Journal) -> None:
    first = journal.record_decision("fraud", "retrain", AS_OF, RETRAIN, "pending")
    assert journal.record_decision("fraud", "retrain", AS_OF, Decision("none"), "none") == first
    assert len(journal.entries("fraud", kind="decision")) == 1


def test_a_suffix_tells_two_decisions_of_one_time_apart(journal: Journal) -> None:
    made = journal.record_decision("fraud", "promote", AS_OF, RETRAIN, "pending", suffix="v3")
    assert made.id == "promote-20260309T000000Z-v3"


def test_approval_and_execution_are_audited(journal: Journal) -> None:
    journal.record_decision("fraud", "retrain", AS_OF, RETRAIN, "pending")
    approved = journal.approve(ID, "ada", "amounts changed")
    assert (approved.state, approved.actor, approved.reason) == ("approved", "ada", "amounts changed")
    done = journal.mark_executed(ID, {"version": "4"})
    assert (done.state, done.result) == ("executed", {"version": "4"})
    assert journal.mark_executed(ID, {"version": "5"}) == done
    told = [(e.actor, e.reason, e.body["state"]) for e in journal.entries("fraud", kind="decision")]
    assert told == [
        ("policy", "retrain: CadenceDue: every 7d", "pending"),
        ("ada", "amounts changed", "approved"),
        ("platform", "", "executed"),
    ]
    journal.verify_chain()


def test_approving_twice_changes_nothing(journal: Journal) -> None:
    journal.record_decision("fraud", "retrain", AS_OF, RETRAIN, "pending")
    first = journal.approve(ID, "ada", "yes")
    assert journal.approve(ID, "bob", "yes too") == first


@pytest.mark.parametrize(
    ("path", "last", "message"),
    [
        pytest.param(("refuse",), "approve", "cannot become approved (it is refused)", id="a refused one is final"),
        pytest.param(("approve", "execute"), "refuse", "cannot become refused (it is executed)", id="done is done"),
        pytest.param(("approve", "execute"), "approve", "cannot become approved (it is executed)", id="nor again"),
        pytest.param((), "execute", "cannot become executed (it is pending)", id="not before a person said so"),
        pytest.param(("approve", "refuse"), "execute", "cannot become executed (it is refused)", id="taken back"),
    ],
)
def test_an_illegal_step_names_the_state(journal: Journal, path: tuple[str, ...], last: str, message: str) -> None:
    journal.record_decision("fraud", "retrain", AS_OF, RETRAIN, "pending")
    steps = {
        "approve": lambda: journal.approve(ID, "ada", "yes"),
        "refuse": lambda: journal.refuse(ID, "ada", "no"),
        "execute": lambda: journal.mark_executed(ID, {}),
    }
    for step in path:
        steps[step]()
    before = journal.decision(ID)
    with pytest.raises(Conflict) as caught:
        steps[last]()
    assert message in str(caught.value)
    assert journal.decision(ID) == before


def test_a_decision_that_asks_for_nothing_cannot_be_approved(journal: Journal) -> None:
    journal.record_decision("fraud", "retrain", AS_OF, Decision("none"), "none")
    with pytest.raises(Conflict, match="a decision that is none may become nothing else"):
        journal.approve(ID, "ada", "yes")


def test_an_unknown_decision_is_not_found(journal: Journal) -> None:
    with pytest.raises(NotFound, match="no such decision"):
        journal.approve(ID, "ada", "yes")


def test_an_id_that_two_projects_share_needs_the_project(journal: Journal) -> None:
    for project in ("a", "b"):
        journal.record_decision(project, "retrain", AS_OF, RETRAIN, "pending")
    with pytest.raises(Conflict, match=r"several projects have one \(a, b\)"):
        journal.approve(ID, "ada", "yes")
    assert journal.approve(ID, "ada", "yes", project="b").project == "b"
    assert journal.decision(ID, project="a").state == "pending"


def test_decisions_are_found_by_time(journal: Journal) -> None:
    for day in range(3):
        journal.record_decision("fraud", "retrain", AS_OF + day * 86_400_000_000, RETRAIN, "pending")
    found = journal.decisions("fraud", since_us=AS_OF + 1, limit=1, newest_first=True)
    assert [one.id for one in found] == ["retrain-20260311T000000Z"]
