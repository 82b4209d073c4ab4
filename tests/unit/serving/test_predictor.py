"""From requests to replies and records: assignment, the ladder, and what the log says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from memory.tiny import T0_US
from tidewheel.clock import MINUTE_US, FixedClock
from tidewheel.errors import Unavailable
from tidewheel.features.ports import Fetched
from tidewheel.serving.answered import Answered, frames, replies
from tidewheel.serving.batch import make_batch
from tidewheel.serving.ladder import Ladder
from tidewheel.serving.last_good import LastGood
from tidewheel.serving.prediction_record import PredictionRecord
from tidewheel.serving.predictor import begin, finish, wanted_of, without_model
from tidewheel.serving.request import PredictReply, PredictRequest
from tidewheel.serving.shadow import shadow_frames
from tidewheel.serving.snapshot import Snapshot
from unit.serving.conftest import Bench


def request(customers: Sequence[int], amount: float = 50.0, t_us: int = T0_US, **more: Any) -> PredictRequest:
    n = len(customers)
    columns: dict[str, list[Any]] = {"customer_id": list(customers), "amount": [amount] * n}
    return PredictRequest("r", n, columns, [f"e{i}" for i in range(n)], [t_us] * n, 0, **more)


def ask(
    bench: Bench, snapshot: Snapshot, *requests: PredictRequest, late: str | None = None, down: str | None = None
) -> Answered:
    """Answered with what the store has; ``down`` says why it has nothing."""
    batch = make_batch(snapshot, requests)
    asked = begin(batch)
    wanted = wanted_of(asked)
    found = Unavailable(down) if down else Fetched(bench.store.read(wanted))
    if isinstance(found, Fetched) and late is None and len(asked) == 1 and asked[0].version.memory is not None:
        asked[0].version.memory.remember(wanted, found.blobs, int(batch.t_us.max()))
    return finish(batch, asked, found, late)


def logged(answered: Answered) -> list[PredictionRecord]:
    include = [True] * len(answered.batch.requests)
    return [record for frame in frames(answered, include, FixedClock()) for record in frame.records()]


def shadowed(answered: Answered) -> list[PredictionRecord]:
    return [record for frame in shadow_frames(answered, FixedClock()) for record in frame.records()]


def values_of(answered: Answered) -> np.ndarray:
    values = answered.groups[0].values
    assert values is not None
    return values


def reply_to(answered: Answered, index: int = 0) -> PredictReply:
    reply = replies(answered)[index]
    assert isinstance(reply, PredictReply)
    return reply


class Broken:
    """A reader or a scorer that fails."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def score(self, *_: object) -> Any:
        raise self._error

    read = score


class NotANumber:
    def score(self, x: np.ndarray) -> np.ndarray:
        return np.full(len(x), np.nan)


def test_a_healthy_request_gets_score_decision_and_version(bench: Bench) -> None:
    version = bench.load("1")
    reply = reply_to(ask(bench, bench.snapshot(version, weights={"1": 1.0}), request([7, 8])))
    assert (reply.versions, reply.degraded, len(set(reply.scores))) == (["1", "1"], [False, False], 1)
    assert reply.decisions == version.bands.decide(np.array(reply.scores, dtype=float))


def test_several_requests_are_answered_as_if_alone(bench: Bench) -> None:
    snapshot = bench.snapshot(bench.load("1"), weights={"1": 1.0})
    alone = [reply_to(ask(bench, snapshot, request([unit], amount))).scores for unit, amount in ((7, 10.0), (8, 290.0))]
    together = ask(bench, snapshot, request([7], 10.0), request([8], 290.0))
    assert [reply_to(together, index).scores for index in (0, 1)] == alone
    assert alone[0] != alone[1]


def test_each_unit_is_answered_by_its_variant_with_that_variants_features(bench: Bench) -> None:
    snapshot = bench.snapshot(bench.load("1"), bench.load("2"), weights={"2": 0.5, "1": 0.5})
    answered = ask(bench, snapshot, request(range(40)))
    versions = reply_to(answered).versions
    assert set(versions) == {"1", "2"}
    assert versions == reply_to(ask(bench, snapshot, request(range(40)))).versions
    written = logged(answered)
    assert {(r.version, r.role, len(r.features) // 8) for r in written} == {("1", "champion", 3), ("2", "canary", 2)}


def test_a_pinned_request_is_answered_by_that_version(bench: Bench) -> None:
    snapshot = bench.snapshot(bench.load("1"), bench.load("2"), weights={"1": 1.0})
    assert reply_to(ask(bench, snapshot, request([7], pinned="2"))).versions == ["2"]


def test_stale_features_mark_a_reply_degraded(bench: Bench) -> None:
    version = bench.load("1")
    version.freshness.stale = ("StaleFeatures:card",)
    reply = reply_to(ask(bench, bench.snapshot(version, weights={"1": 1.0}), request([7])))
    assert (reply.degraded, reply.reasons, reply.versions) == ([True], [("StaleFeatures:card",)], ["1"])


def test_without_the_store_the_last_good_values_answer_and_then_the_defaults(bench: Bench) -> None:
    version = bench.load("1")
    healthy = bench.snapshot(version, weights={"1": 1.0})
    assert reply_to(ask(bench, healthy, request([7]))).degraded == [False]
    answered = ask(bench, healthy, request([7, 8], t_us=T0_US + MINUTE_US), down="gone")
    assert reply_to(answered).reasons == [
        ("FeaturesUnavailable", "LastGood"),
        ("FeaturesUnavailable", "FeatureDefaults"),
    ]
    assert reply_to(answered).versions == ["1", "1"]
    assert [record.role for record in logged(answered)] == ["fallback", "fallback"]


def test_last_good_values_are_forgotten_in_event_time(bench: Bench) -> None:
    version = bench.load("1")
    snapshot = bench.snapshot(version, weights={"1": 1.0})
    ask(bench, snapshot, request([7]))
    for later_us, rung in ((10 * MINUTE_US, "LastGood"), (10 * MINUTE_US + 1, "FeatureDefaults")):
        reply = reply_to(ask(bench, snapshot, request([7], t_us=T0_US + later_us), down="gone"))
        assert reply.reasons == [("FeaturesUnavailable", rung)]


def test_a_request_feature_is_fresh_on_every_rung(bench: Bench) -> None:
    snapshot = bench.snapshot(bench.load("1"), weights={"1": 1.0})
    vectors = [values_of(ask(bench, snapshot, request([7], amount), down="gone"))[0] for amount in (10.0, 290.0)]
    assert [vector[-1] for vector in vectors] == [0.05, 0.95]


def test_a_model_that_fails_leaves_the_heuristic(bench: Bench) -> None:
    for scorer in (Broken(RuntimeError("no")), NotANumber()):
        version = replace(bench.load("1"), scorer=scorer)
        reply = reply_to(ask(bench, bench.snapshot(version, weights={"1": 1.0}), request([7], 290.0)))
        assert (reply.scores, reply.decisions, reply.versions) == ([0.95], ["decline"], [""])
        assert reply.reasons == [("ModelFailed", "Heuristic")]


def test_with_nothing_left_the_static_decision_answers(bench: Bench) -> None:
    version = bench.load("1")
    fallback = version.ladder.fallback
    assert fallback is not None
    without = fallback.model_copy(update={"heuristic": None})
    ladder = Ladder(version.reader, version.features, without, LastGood())
    broken = replace(version, scorer=NotANumber(), ladder=ladder)
    reply = reply_to(ask(bench, bench.snapshot(broken, weights={"1": 1.0}), request([7])))
    assert (reply.scores, reply.decisions, reply.versions) == ([None], ["review"], [""])
    assert reply.reasons == [("ModelFailed", "StaticDecision")]


def test_a_project_without_fallback_fails_typed(bench: Bench) -> None:
    version = bench.load("1")
    strict = replace(version, ladder=Ladder(version.reader, version.features, None, LastGood()))
    answered = ask(bench, bench.snapshot(strict, weights={"1": 1.0}), request([7]), down="gone")
    error = replies(answered)[0]
    assert isinstance(error, Unavailable)
    assert str(error) == "features cannot be read in time and the project declares no serving.fallback"
    assert logged(answered) == []


def test_late_requests_are_answered_without_the_store(bench: Bench) -> None:
    snapshot = bench.snapshot(bench.load("1"), weights={"1": 1.0})
    reply = reply_to(ask(bench, snapshot, request([7]), late="FeaturesLate"))
    assert reply.reasons == [("FeaturesLate", "FeatureDefaults")]


def test_a_shadow_scores_the_same_requests_with_its_own_features(bench: Bench) -> None:
    snapshot = bench.snapshot(bench.load("1"), bench.load("2"), weights={"1": 1.0}, shadow=("2",))
    answered = ask(bench, snapshot, request([7, 8]))
    made = shadowed(answered)
    assert [(r.version, r.role, r.request_id, len(r.features) // 8) for r in made] == [
        ("2", "shadow", "r/0", 2),
        ("2", "shadow", "r/1", 2),
    ]
    assert not {r.record_id for r in made} & {r.record_id for r in logged(answered)}


def test_a_shadow_with_the_same_features_reuses_the_vector(bench: Bench) -> None:
    twin = replace(bench.load("3"), shadow_reader=Broken(AssertionError("was read")))
    snapshot = bench.snapshot(bench.load("1"), twin, weights={"1": 1.0}, shadow=("3",))
    answered = ask(bench, snapshot, request([7]))
    (made,) = shadowed(answered)
    assert (made.features, made.reasons) == (values_of(answered)[0].tobytes(), ())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"scorer": NotANumber()}, "ModelFailed", id="whose model fails"),
        pytest.param({"shadow_reader": Broken(Unavailable("gone"))}, "FeaturesUnavailable", id="without features"),
    ],
)
def test_a_failing_shadow_is_logged_as_degraded(bench: Bench, change: dict[str, Any], reason: str) -> None:
    shadow = replace(bench.load("2"), **change)
    snapshot = bench.snapshot(bench.load("1"), shadow, weights={"1": 1.0}, shadow=("2",))
    (made,) = shadowed(ask(bench, snapshot, request([7])))
    assert (made.degraded, made.reasons, made.score) == (True, (reason,), None)


def vector_request(*vectors: list[float], pinned: str = "1", **columns: list[Any]) -> PredictRequest:
    n = len(vectors)
    sent = np.array(vectors, dtype=float)
    return PredictRequest("v", n, columns, [f"e{i}" for i in range(n)], [T0_US] * n, 0, pinned, vectors=sent)


def test_a_vector_that_was_read_scores_the_same_when_it_is_sent(bench: Bench) -> None:
    version = bench.load("1")
    snapshot = bench.snapshot(version, weights={"1": 1.0})
    read = ask(bench, snapshot, request([7, 8], 290.0))
    sent = vector_request(*values_of(read).tolist())
    assert begin(make_batch(snapshot, [sent])) == [], "nothing is to be read for it"
    assert reply_to(ask(bench, snapshot, sent)).scores == reply_to(read).scores


def test_what_is_missing_in_a_vector_is_the_features_default(bench: Bench) -> None:
    snapshot = bench.snapshot(bench.load("1"), weights={"1": 1.0})
    answered = ask(bench, snapshot, vector_request([1.0, np.nan, 0.05]))
    assert values_of(answered).tolist() == [[1.0, 0.0, 0.05]]


def test_rows_with_sent_vectors_are_logged_as_such_with_the_keys_that_came(bench: Bench) -> None:
    snapshot = bench.snapshot(bench.load("1"), bench.load("2"), weights={"2": 1.0}, shadow=("1",))
    answered = ask(
        bench, snapshot, vector_request([1.0, 50.0, 0.05], customer_id=[7]), vector_request([1.0, 9.0, 0.05])
    )
    made = logged(answered)
    assert [(one.role, one.version, one.unit, one.degraded) for one in made] == [
        ("vector", "1", "7", False),
        ("vector", "1", "", False),
    ]


def test_a_model_that_fails_on_a_sent_vector_leaves_the_heuristic(bench: Bench) -> None:
    version = replace(bench.load("1"), scorer=NotANumber())
    answered = ask(bench, bench.snapshot(version, weights={"1": 1.0}), vector_request([1.0, 50.0, 0.95]))
    reply = reply_to(answered)
    assert (reply.scores, reply.decisions, reply.reasons) == ([0.95], ["decline"], [("ModelFailed", "Heuristic")])
    assert [one.role for one in logged(answered)] == ["vector"]


def test_a_damaged_state_costs_its_own_rows_alone(bench: Bench) -> None:
    version = bench.load("1")
    snapshot = bench.snapshot(version, weights={"1": 1.0})
    batch = make_batch(snapshot, [request([7, 8]), request([9]), request([8])])
    asked = begin(batch)
    wanted = wanted_of(asked)
    blobs = bench.store.read(wanted)
    damaged = [[b"\x01\x02\x03" if at == 1 else blob for at, blob in enumerate(mine)] for mine in blobs]
    answered = finish(batch, asked, Fetched(damaged))
    assert [reply_to(answered, index).reasons for index in range(3)] == [
        [(), ("FeaturesFailed", "FeatureDefaults")],
        [()],
        [("FeaturesFailed", "FeatureDefaults")],
    ]
    assert reply_to(answered, 1).scores == reply_to(ask(bench, snapshot, request([9]))).scores
    assert sorted(record.role for record in logged(answered)) == ["champion", "champion", "fallback", "fallback"]


def test_a_refused_key_fails_its_own_request_alone_where_no_fallback_is_declared(bench: Bench) -> None:
    version = bench.load("1")
    strict = replace(version, ladder=Ladder(version.reader, version.features, None, LastGood()))
    batch = make_batch(bench.snapshot(strict, weights={"1": 1.0}), [request([7]), request([8]), request([9])])
    asked = begin(batch)
    found = Fetched(bench.store.read(wanted_of(asked)), {(0, 1): "WRONGTYPE"})
    made = replies(finish(batch, asked, found))
    assert [isinstance(one, Unavailable) for one in made] == [False, True, False]


def test_a_row_that_the_model_fails_on_takes_no_other_with_it(bench: Bench) -> None:
    class NotANumberAt(NotANumber):
        def score(self, x: np.ndarray) -> np.ndarray:
            return np.where(x[:, -1] > 0.5, np.nan, 0.25)

    version = replace(bench.load("1"), scorer=NotANumberAt())
    answered = ask(bench, bench.snapshot(version, weights={"1": 1.0}), request([7], 10.0), request([8], 290.0))
    assert [reply_to(answered, index).scores for index in (0, 1)] == [[0.25], [0.95]]
    assert reply_to(answered, 1).reasons == [("ModelFailed", "Heuristic")]


def test_with_no_time_for_a_model_the_heuristic_answers(bench: Bench) -> None:
    batch = make_batch(bench.snapshot(bench.load("1"), weights={"1": 1.0}), [request([7], 290.0)])
    reply = reply_to(without_model(batch, begin(batch), "Overloaded"))
    assert (reply.scores, reply.reasons, reply.versions) == ([0.95], [("Overloaded", "Heuristic")], [""])


def test_two_variants_get_what_each_of_them_asked_the_store_for(bench: Bench) -> None:
    one, two = bench.load("1"), bench.load("2")
    both = bench.snapshot(one, two, weights={"2": 0.5, "1": 0.5})
    together = reply_to(ask(bench, both, request(range(40))))
    for version in (one, two):
        alone = reply_to(ask(bench, bench.snapshot(version, weights={version.version: 1.0}), request(range(40))))
        mine = [row for row, name in enumerate(together.versions) if name == version.version]
        assert [together.scores[row] for row in mine] == [alone.scores[row] for row in mine]


def test_a_test_is_logged_as_one_and_no_shadow_scores_it(bench: Bench) -> None:
    snapshot = bench.snapshot(bench.load("1"), bench.load("2"), weights={"1": 1.0}, shadow=("2",))
    answered = ask(bench, snapshot, request([7], test=True), request([8]))
    assert [record.role for record in logged(answered)] == ["test", "champion"]
    assert [record.unit for record in shadowed(answered)] == ["8"]
