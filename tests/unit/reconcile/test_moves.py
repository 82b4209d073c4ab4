"""Moves of @champion by a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory.cluster import MemoryCluster
from memory.model_registry import MemoryRegistry
from tidewheel.bundle.manifest import write_manifest
from tidewheel.clock import SECOND_US, FixedClock
from tidewheel.deployment.document import Variant
from tidewheel.errors import ContractViolation, NotFound, Unavailable
from tidewheel.findings import Finding
from tidewheel.journal.ledger import Journal
from tidewheel.reconcile.head import Head, document_of
from tidewheel.reconcile.moves import move_champion, previous_champion, wait_until_served
from tidewheel.reconcile.ports import ModelServer

VARIANTS = {number: Variant(number, number * 64, {"approve": 0.0}) for number in "12"}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(f"sqlite:///{tmp_path / 'journal.db'}")


@pytest.fixture
def registry(tmp_path: Path) -> MemoryRegistry:
    made = MemoryRegistry()
    for number in "12":
        folder = tmp_path / number
        folder.mkdir()
        (folder / "model.ubj").write_text(number)
        made.register("tiny", folder, write_manifest(folder), tags={}, metrics={}, params={})
    return made


def test_a_move_is_recorded_with_who_and_why(journal: Journal, registry: MemoryRegistry) -> None:
    for version in ("1", "2", "2"):
        move_champion(journal, registry, "tiny", version, kind="promoted", actor="ann", reason="because")
    moves = [(e.actor, e.reason, e.body["from"], e.body["to"]) for e in journal.entries("tiny", kind="promoted")]
    assert moves == [("ann", "because", None, "1"), ("ann", "because", "1", "2")]
    assert registry.aliases("tiny") == {"champion": "2"}


def test_a_version_that_does_not_exist_moves_nothing(journal: Journal, registry: MemoryRegistry) -> None:
    with pytest.raises(NotFound):
        move_champion(journal, registry, "tiny", "9", kind="promoted", actor="ann", reason="because")
    assert (registry.aliases("tiny"), journal.entries("tiny")) == ({}, ())


def test_the_champion_before_is_what_a_rollback_goes_to(journal: Journal) -> None:
    with pytest.raises(NotFound, match="nothing serves yet"):
        previous_champion(journal, "tiny")
    journal.swap("tiny", 0, Head(champion="1").to_body())
    with pytest.raises(NotFound, match="version 1 is the first that serves"):
        previous_champion(journal, "tiny")
    journal.swap("tiny", 1, Head(champion="2", previous="1").to_body())
    assert previous_champion(journal, "tiny") == "1"


def test_waiting_ends_when_every_server_serves_it_or_with_the_reason(journal: Journal) -> None:
    cluster, clock = MemoryCluster(), FixedClock()

    def tick(seconds: float) -> None:
        clock.at_us += int(seconds * SECOND_US)

    def wait(version: str) -> int:
        return wait_until_served(journal, cluster, "tiny", version, clock, tick, 2.0)

    with pytest.raises(Unavailable, match="version 1 is @champion but not served after 2 s"):
        wait("1")
    head = Head("customer_id", champion="1", weights={"1": 1.0}, variants={"1": VARIANTS["1"]})
    journal.swap("tiny", 0, head.to_body())
    cluster.apply_server(ModelServer("tiny"))
    cluster.write_document(document_of("tiny", 1, head))
    assert wait("1") == 1
    refused = {"2": Finding("GoldenMismatch", "3 of 8 differ", "critical", "2")}
    journal.swap("tiny", 1, Head("customer_id", champion="1", refused=refused).to_body())
    with pytest.raises(ContractViolation, match="version 2 is refused: GoldenMismatch: 3 of 8 differ"):
        wait("2")
