"""What should happen next: each rule of the plan from what was observed, as tables of one change each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memory.tiny import write_project
from tidewheel.clock import HOUR_US
from tidewheel.deployment.document import DeploymentDocument, Variant
from tidewheel.deployment.rollout import LOADING, Observations, RolloutState
from tidewheel.deployment.status import ServerStatus, VersionStatus
from tidewheel.findings import Decision, Finding
from tidewheel.reconcile.desired import plan_of
from tidewheel.reconcile.guards import not_too_many_removals, registry_is_not_empty
from tidewheel.reconcile.head import ActiveRollout, Ending, Head, document_of, head_from_body
from tidewheel.reconcile.observed import Observed
from tidewheel.reconcile.plan import (
    Action,
    DeleteAlias,
    DeleteServer,
    EnsureServer,
    FetchBundle,
    Plan,
    RecordDecision,
    RecordFindings,
    SetAlias,
    SettleDecision,
    Swap,
    WriteDocument,
)
from tidewheel.reconcile.ports import ModelServer
from tidewheel.spec.load import load_project
from tidewheel.spec.project import ModelProject

BANDS = {"approve": 0.0, "review": 0.5, "decline": 0.9}
V1, V2, V3 = (Variant(number, number * 64, BANDS) for number in "123")
READY = VersionStatus("", "ready", features_ready=True)
PASSED = Ending("passed", 9 * HOUR_US, (Finding("RolloutDone", "2 steps passed", "info", "2"),))
BROKEN = Finding("GoldenMismatch", "3 of 8 golden requests differ", "critical", "2")


def server(*ready: Variant, **others: VersionStatus) -> ServerStatus:
    versions = {v.version: replace(READY, digest=v.digest) for v in ready} | others
    return ServerStatus("tiny", 10, 0, 8080, 4, 0, versions)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelProject:
    return load_project(write_project(tmp_path_factory.mktemp("project")))


@pytest.fixture
def settled(spec: ModelProject) -> Observed:
    """Version 1 serves, nobody asks for anything."""
    head = Head("customer_id", champion="1", weights={"1": 1.0}, variants={"1": V1})
    return Observed(
        "tiny", spec, 4, head, {"champion": "1"}, 1, {"1": V1}, document_of("tiny", 4, head), ModelServer("tiny"),
        (server(V1),), wall_us=99,
    )  # fmt: skip


def in_rollout(settled: Observed, step: int, ending: Ending | None = None, **change: Any) -> Observed:
    """Version 2 is on its way against version 1."""
    weights = {"2": 0.25, "1": 0.75} if step == 1 else {"1": 1.0}
    head = replace(
        settled.head,
        variants={"1": V1, "2": V2},
        weights=weights,
        shadow=("2",) if step == 0 else (),
        rollout=ActiveRollout(RolloutState("2", "1", step, 4), ending),
    )
    seen = replace(
        settled,
        head=head,
        document=document_of("tiny", 4, head),
        aliases={"champion": "1", "challenger": "2"},
        fetched={"1": V1, "2": V2},
        statuses=(server(V1, V2),),
        seen=Observations(100, first_event_us=0, last_event_us=2 * HOUR_US, p99_latency_us=900.0),
        now_us=2 * HOUR_US,
    )
    return replace(seen, **change)


def actions(seen: Observed) -> tuple[Action, ...]:
    return plan_of(seen).actions


def swapped(seen: Observed) -> Head:
    (swap,) = [action for action in actions(seen) if isinstance(action, Swap)]
    assert swap.expected == seen.generation
    return swap.head


def told(seen: Observed) -> list[str]:
    return [type(action).__name__ for action in actions(seen)]


# -- steady ------------------------------------------------------------------------------------------------------


def test_where_everything_is_as_asked_nothing_is_done(settled: Observed) -> None:
    assert actions(settled) == ()


def test_a_registry_that_does_not_answer_changes_nothing(settled: Observed) -> None:
    assert actions(replace(settled, aliases=None, fetched={})) == ()


def test_an_alias_that_was_deleted_keeps_the_champion(settled: Observed) -> None:
    assert actions(replace(settled, aliases={})) == ()


def test_a_lost_document_and_a_lost_server_come_back(settled: Observed) -> None:
    document = settled.document
    assert document is not None
    assert actions(replace(settled, document=None, server=None)) == (
        WriteDocument(document),
        EnsureServer(ModelServer("tiny")),
    )


def test_a_bundle_that_is_gone_from_the_disk_is_fetched_again(settled: Observed) -> None:
    assert actions(replace(settled, fetched={})) == (FetchBundle("1"),)


def test_a_project_that_is_no_longer_applied_has_no_server(settled: Observed) -> None:
    assert actions(replace(settled, spec=None)) == (DeleteServer("tiny"),)


# -- @champion -----------------------------------------------------------------------------------------------------


def test_the_first_champion_is_fetched_then_staged_with_a_server(settled: Observed) -> None:
    first = replace(settled, generation=0, head=Head(), fetched={}, document=None, server=None, statuses=())
    assert actions(first) == (FetchBundle("1"),)
    here = replace(first, fetched={"1": V1})
    head = Head("customer_id", staged="1", variants={"1": V1})
    assert actions(here) == (
        Swap(0, head, "stage 1"),
        WriteDocument(DeploymentDocument("tiny", 1, "customer_id", "tiny:", None, (V1,), {}, (), ("1",))),
        EnsureServer(ModelServer("tiny")),
    )


def test_a_moved_champion_is_staged_and_the_old_one_serves_on(settled: Observed) -> None:
    seen = replace(settled, aliases={"champion": "2"}, fetched={"1": V1, "2": V2})
    head = swapped(seen)
    assert (head.champion, head.staged, dict(head.weights)) == ("1", "2", {"1": 1.0})
    assert document_of("tiny", 5, head).warm == ("2",)


@pytest.mark.parametrize(
    ("statuses", "champion"),
    [
        pytest.param((server(V1, V2),), "2", id="ready everywhere: switch"),
        pytest.param((server(V1, V2), server(V1)), None, id="one replica does not know it yet: wait"),
        pytest.param((server(V1, **{"2": VersionStatus(V2.digest, "loading")}),), None, id="loading: wait"),
        pytest.param(
            (server(V1, **{"2": VersionStatus(V2.digest, "ready", features_ready=False)}),),
            None,
            id="its features are not caught up: wait",
        ),
        pytest.param((server(V1, **{"2": replace(READY, digest="x")}),), None, id="other bytes are loaded: wait"),
        pytest.param((), None, id="no server lives: wait"),
    ],
)
def test_a_staged_champion_serves_when_every_server_can(
    settled: Observed, statuses: tuple[ServerStatus, ...], champion: str | None
) -> None:
    head = replace(settled.head, staged="2", variants={"1": V1, "2": V2})
    seen = replace(
        settled,
        head=head,
        document=document_of("tiny", 4, head),
        aliases={"champion": "2"},
        fetched={"1": V1, "2": V2},
        statuses=statuses,
    )
    if champion is None:
        assert actions(seen) == ()
    else:
        new = swapped(seen)
        assert (new.champion, new.previous, new.staged, dict(new.weights)) == ("2", "1", None, {"2": 1.0})
        assert document_of("tiny", 5, new).warm == ("1",)


def test_moving_the_alias_back_is_one_switch_to_the_warm_version(settled: Observed) -> None:
    head = replace(settled.head, champion="2", previous="1", weights={"2": 1.0}, variants={"1": V1, "2": V2})
    new = swapped(replace(settled, head=head, fetched={"1": V1, "2": V2}, statuses=(server(V1, V2),)))
    assert (new.champion, new.previous) == ("1", "2")


def test_the_alias_moved_back_while_staging_ends_the_staging(settled: Observed) -> None:
    head = replace(settled.head, staged="2", variants={"1": V1, "2": V2})
    new = swapped(replace(settled, head=head, fetched={"1": V1, "2": V2}))
    assert (new.staged, tuple(new.variants)) == (None, ("1",))


def test_a_bad_champion_is_refused_once_and_the_old_one_serves(settled: Observed) -> None:
    head = replace(settled.head, staged="2", variants={"1": V1, "2": V2})
    failed = VersionStatus(V2.digest, "failed", "GoldenMismatch", "3 of 8 golden requests differ")
    seen = replace(
        settled,
        head=head,
        aliases={"champion": "2"},
        fetched={"1": V1, "2": V2},
        statuses=(server(V1, **{"2": failed}),),
    )
    assert actions(seen)[:3] == (
        RecordFindings("deploy", 99, (BROKEN,), "2"),
        RecordDecision(99, Decision("abort", (BROKEN,)), "none", "2", "v2-refused"),
        Swap(4, replace(settled.head, refused={"2": BROKEN}), "refuse 2: GoldenMismatch"),
    )
    again = replace(seen, head=swapped(seen), generation=5, document=document_of("tiny", 5, swapped(seen)))
    assert actions(again) == ()
    assert swapped(replace(again, aliases={"champion": "1"})).refused == {}


def test_wrong_bytes_are_refused_before_any_server_sees_them(settled: Observed) -> None:
    wrong = Finding("DigestMismatch", "digest is 1 but 2 was registered", "critical", "2")
    new = swapped(replace(settled, aliases={"champion": "2"}, fetched={"1": V1, "2": wrong}))
    assert (new.champion, new.staged, new.refused) == ("1", None, {"2": wrong})


# -- @challenger ---------------------------------------------------------------------------------------------------


def test_a_challenger_is_loaded_then_shadows(settled: Observed) -> None:
    asked = replace(settled, aliases={"champion": "1", "challenger": "2"}, fetched={"1": V1, "2": V2})
    loading = swapped(asked)
    assert loading.rollout == ActiveRollout(RolloutState("2", "1", LOADING, 5))
    shadow = swapped(in_rollout(settled, LOADING))
    assert (shadow.shadow, dict(shadow.weights)) == (("2",), {"1": 1.0})
    assert shadow.rollout == ActiveRollout(RolloutState("2", "1", 0, 5))


def test_a_challenger_waits_for_a_champion(settled: Observed) -> None:
    seen = replace(settled, head=Head(), aliases={"challenger": "2"}, fetched={"2": V2}, document=None)
    assert [action for action in actions(seen) if isinstance(action, Swap)] == []


def test_a_shadow_that_passed_becomes_a_canary(settled: Observed) -> None:
    canary = swapped(in_rollout(settled, 0))
    assert (dict(canary.weights), canary.shadow) == ({"2": 0.25, "1": 0.75}, ())
    assert document_of("tiny", 5, canary).salt == "tiny:2"


def test_a_challenger_that_cannot_be_loaded_ends(settled: Observed) -> None:
    failed = VersionStatus(V2.digest, "failed", "GoldenMismatch", "3 of 8 golden requests differ")
    ended = swapped(in_rollout(settled, LOADING, statuses=(server(V1, **{"2": failed}),)))
    assert ended.rollout is not None
    assert ended.rollout.ending == Ending("aborted", 2 * HOUR_US, (BROKEN,))


def test_a_guard_takes_the_traffic_first_and_clears_the_alias_next(settled: Observed) -> None:
    seen = in_rollout(settled, 1)
    bad = replace(seen, seen=replace(seen.seen, n_errors=100))
    ended = swapped(bad)
    assert dict(ended.weights) == {"1": 1.0}
    assert ended.rollout is not None and ended.rollout.ending is not None
    findings = ended.rollout.ending.findings
    assert [finding.reason for finding in findings] == ["ErrorsOverLimit"]
    after = replace(bad, head=ended, generation=5, document=document_of("tiny", 5, ended))
    assert actions(after)[:4] == (
        RecordFindings("rollout", 2 * HOUR_US, findings, "2"),
        RecordDecision(2 * HOUR_US, Decision("abort", findings), "none", "2", "v2-abort"),
        DeleteAlias("challenger"),
        Swap(5, replace(settled.head), "rollout of 2 aborted"),
    )
    assert actions(replace(after, aliases=None)) == ()  # the registry is down: the traffic is off all the same


def test_a_champion_moved_by_hand_aborts_the_rollout_and_deploys(settled: Observed) -> None:
    seen = in_rollout(settled, 1, aliases={"champion": "3", "challenger": "2"}, fetched={"1": V1, "2": V2, "3": V3})
    ended = swapped(seen)
    assert ended.rollout is not None and ended.rollout.ending is not None
    (finding,) = ended.rollout.ending.findings
    assert (finding.reason, finding.message) == ("AliasMoved", "@champion was moved to 3 during the rollout")


def test_a_challenger_promoted_by_hand_deploys_at_once(settled: Observed) -> None:
    seen = in_rollout(settled, 0, aliases={"champion": "2", "challenger": "2"})
    assert told(seen)[:2] == ["DeleteAlias", "Swap"]
    new = swapped(seen)
    assert (new.champion, new.previous, new.rollout) == ("2", "1", None)


def test_a_challenger_taken_away_ends_the_rollout(settled: Observed) -> None:
    ended = swapped(in_rollout(settled, 0, aliases={"champion": "1"}))
    assert ended.rollout is not None and ended.rollout.ending is not None
    assert ended.rollout.ending.findings[0].message == "@challenger is gone"


# -- promotion -----------------------------------------------------------------------------------------------------


def test_the_last_step_is_recorded_before_anything_follows(settled: Observed) -> None:
    passed = swapped(in_rollout(settled, 1))
    assert passed.rollout is not None and passed.rollout.ending is not None
    assert (passed.rollout.ending.outcome, dict(passed.weights)) == ("passed", {"2": 0.25, "1": 0.75})


def test_a_held_rollout_takes_no_step_and_still_aborts(settled: Observed) -> None:
    held = replace(in_rollout(settled, 1), paused=True)
    assert not any(isinstance(action, Swap) for action in plan_of(held).actions)
    slow = replace(held, seen=replace(held.seen, n_errors=held.seen.n_requests))
    aborted = swapped(slow)
    assert aborted.rollout is not None and aborted.rollout.ending is not None
    assert aborted.rollout.ending.outcome == "aborted"


RECORDED = RecordDecision(PASSED.as_of_us, Decision("promote", PASSED.findings), "approved", "2", "v2")
NEEDED = Finding("ApprovalNeeded", "tier 1: a person approves", "info", "2")
ASKED = replace(RECORDED, decision=Decision("promote", (*PASSED.findings, NEEDED)), state="pending")


@pytest.mark.parametrize(
    ("tier", "promotion", "expected"),
    [
        pytest.param(2, None, RECORDED, id="tier 2 approves itself"),
        pytest.param(2, "approved", SetAlias("champion", "2", "1"), id="approved: the alias moves"),
        pytest.param(1, None, ASKED, id="tier 1 asks a person"),
        pytest.param(1, "pending", None, id="pending: wait"),
        pytest.param(1, "approved", SetAlias("champion", "2", "1"), id="approved by a person: the alias moves"),
    ],
)
def test_a_promotion_follows_its_decision(
    settled: Observed, spec: ModelProject, tier: int, promotion: str | None, expected: Action | None
) -> None:
    tiered = spec.model_copy(update={"tier": tier})
    seen = in_rollout(settled, 1, PASSED, spec=tiered, promotion=promotion)
    assert actions(seen) == (() if expected is None else (expected,))


def test_a_refused_promotion_aborts(settled: Observed) -> None:
    ended = swapped(in_rollout(settled, 1, PASSED, promotion="refused"))
    assert ended.rollout is not None
    finding = Finding("ApprovalRefused", "the promotion of 2 was refused", "info", "2")
    assert ended.rollout.ending == Ending("aborted", PASSED.as_of_us, (finding,))


def test_a_candidate_that_waits_for_a_person_is_still_guarded(settled: Observed) -> None:
    seen = in_rollout(settled, 1, PASSED, promotion="pending")
    ended = swapped(replace(seen, seen=replace(seen.seen, n_errors=100)))
    after = replace(seen, head=ended, generation=5)
    assert isinstance(actions(after)[1], SettleDecision)
    assert ended.rollout is not None and ended.rollout.ending is not None
    assert ended.rollout.ending.outcome == "aborted"


def test_the_promoted_version_serves_and_its_decision_is_done(settled: Observed) -> None:
    seen = in_rollout(settled, 1, PASSED, promotion="approved", aliases={"champion": "2", "challenger": "2"})
    new = replace(settled.head, champion="2", previous="1", weights={"2": 1.0}, variants={"1": V1, "2": V2})
    assert actions(seen)[:3] == (
        SettleDecision("promote-19700101T090000Z-v2", "executed", "@champion is 2"),
        DeleteAlias("challenger"),
        Swap(4, new, "serve 2"),
    )


# -- guards and codec ----------------------------------------------------------------------------------------------


def test_an_empty_registry_is_not_believed(settled: Observed) -> None:
    empty = replace(settled, aliases={}, n_versions=0)
    finding = registry_is_not_empty(empty)
    assert finding is not None
    assert (finding.reason, finding.message) == (
        "EmptyRegistry",
        "the registry has no version of tiny, but 1 is served; nothing is changed",
    )
    assert registry_is_not_empty(settled) is None


@pytest.mark.parametrize(("n_servers", "refused"), [(3, True), (4, False), (1, True)])
def test_at_most_thirty_percent_of_the_services_may_go(n_servers: int, refused: bool) -> None:
    plans = [Plan("gone", (DeleteServer("gone"),))]
    assert (not_too_many_removals(plans, n_servers) is not None) == refused


def test_a_head_reads_back_from_the_journal(settled: Observed) -> None:
    head = replace(in_rollout(settled, 1, PASSED).head, refused={"3": BROKEN}, previous="1")
    assert head_from_body(head.to_body()) == head


def test_the_project_folder_is_what_the_tests_think(tmp_path: Path) -> None:
    assert load_project(write_project(tmp_path)).rollout is not None
