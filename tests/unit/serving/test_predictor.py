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
from tidewheel.serving.ladder import Ladder
from tidewheel.serving.last_good import LastGood
from tidewheel.serving.predictor import Answered, answer, make_batch, records, replies
from tidewheel.serving.request import PredictReply, PredictRequest
from tidewheel.serving.shadow import shadow_records
from tidewheel.serving.snapshot import LoadedVersion, Snapshot
from unit.serving.conftest import Bench


def request(customers: Sequence[int], amount: float = 50.0, t_us: int = T0_US, **more: Any) -> PredictRequest:
    n = len(customers)
    columns: dict[str, list[Any]] = {"customer_id": list(customers), "amount": [amount] * n}
    return PredictRequest("r", n, columns, [f"e{i}" for i in range(n)], [t_us] * n, 0, **more)


def ask(snapshot: Snapshot, *requests: PredictRequest, late: str | None = None) -> Answered:
    return answer(make_batch(snapshot, requests), late)


def reply_to(answered: Answered, index: int = 0) -> PredictReply:
    reply = replies(answered)[index]
    assert isinstance(reply, PredictReply)
    return reply


class Broken:
    """A reader or a scorer that fails."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def read(self, *_: object) -> Any:
        raise self._error

    score = read

    def stale_views(self, now_us: int) -> tuple[str, ...]:
        return ()

    def caught_up(self) -> bool:
        return True


class NotANumber:
    def score(self, x: np.ndarray) -> np.ndarray:
        return np.full(len(x), np.nan)


def broken_store(version: LoadedVersion, error: Exception | None = None) -> LoadedVersion:
    return replace(version, reader=Broken(error or Unavailable("gone")))


def test_a_healthy_request_gets_score_decision_and_version(bench: Bench) -> None:
    version = bench.load("1")
    reply = reply_to(ask(bench.snapshot(version, weights={"1": 1.0}), request([7, 8])))
    assert (reply.versions, reply.degraded, len(set(reply.scores))) == (["1", "1"], [False, False], 1)
    assert reply.decisions == version.bands.decide(np.array(reply.scores, dtype=float))


def test_several_requests_are_answered_as_if_alone(bench: Bench) -> None:
    snapshot = bench.snapshot(bench.load("1"), weights={"1": 1.0})
    alone = [reply_to(ask(snapshot, request([unit], amount))).scores for unit, amount in ((7, 10.0), (8, 290.0))]
    together = ask(snapshot, request([7], 10.0), request([8], 290.0))
    assert [reply_to(together, index).scores for index in (0, 1)] == alone
    assert alone[0] != alone[1]


def test_each_unit_is_answered_by_its_variant_with_that_variants_features(bench: Bench) -> None:
    snapshot = bench.snapshot(bench.load("1"), bench.load("2"), weights={"2": 0.5, "1": 0.5})
    answered = ask(snapshot, request(range(40)))
    versions = reply_to(answered).versions
    assert set(versions) == {"1", "2"}
    assert versions == reply_to(ask(snapshot, request(range(40)))).versions
    written = records(answered, [True], FixedClock())
    assert {(r.version, r.role, len(r.features) // 8) for r in written} == {("1", "champion", 3), ("2", "canary", 2)}


def test_a_pinned_request_is_answered_by_that_version(bench: Bench) -> None:
    snapshot = bench.snapshot(bench.load("1"), bench.load("2"), weights={"1": 1.0})
    assert reply_to(ask(snapshot, request([7], pinned="2"))).versions == ["2"]


def test_stale_features_mark_a_reply_degraded(bench: Bench) -> None:
    version = bench.load("1")
    version.freshness.stale = ("StaleFeatures:card",)
    reply = reply_to(ask(bench.snapshot(version, weights={"1": 1.0}), request([7])))
    assert (reply.degraded, reply.reasons, reply.versions) == ([True], [("StaleFeatures:card",)], ["1"])


def test_without_the_store_the_last_good_values_answer_and_then_the_defaults(bench: Bench) -> None:
    version = bench.load("1")
    healthy = bench.snapshot(version, weights={"1": 1.0})
    assert reply_to(ask(healthy, request([7]))).degraded == [False]
    snapshot = bench.snapshot(broken_store(version), weights={"1": 1.0})
    answered = ask(snapshot, request([7, 8], t_us=T0_US + MINUTE_US))
    assert reply_to(answered).reasons == [
        ("FeaturesUnavailable", "LastGood"),
        ("FeaturesUnavailable", "FeatureDefaults"),
    ]
    assert reply_to(answered).versions == ["1", "1"]
    assert [record.role for record in records(answered, [True], FixedClock())] == ["fallback", "fallback"]


def test_last_good_values_are_forgotten_in_event_time(bench: Bench) -> None:
    version = bench.load("1")
    ask(bench.snapshot(version, weights={"1": 1.0}), request([7]))
    snapshot = bench.snapshot(broken_store(version), weights={"1": 1.0})
    for later_us, rung in ((10 * MINUTE_US, "LastGood"), (10 * MINUTE_US + 1, "FeatureDefaults")):
        reply = reply_to(ask(snapshot, request([7], t_us=T0_US + later_us)))
        assert reply.reasons == [("FeaturesUnavailable", rung)]


def test_a_request_feature_is_fresh_on_every_rung(bench: Bench) -> None:
    snapshot = bench.snapshot(broken_store(bench.load("1")), weights={"1": 1.0})
    vectors = [ask(snapshot, request([7], amount)).rows[0].values[-1] for amount in (10.0, 290.0)]  # type: ignore
    assert vectors == [0.05, 0.95]


def test_a_model_that_fails_leaves_the_heuristic(bench: Bench) -> None:
    for scorer in (Broken(RuntimeError("no")), NotANumber()):
        version = replace(bench.load("1"), scorer=scorer)
        reply = reply_to(ask(bench.snapshot(version, weights={"1": 1.0}), request([7], 290.0)))
        assert (reply.scores, reply.decisions, reply.versions) == ([0.95], ["decline"], [""])
        assert reply.reasons == [("ModelFailed", "Heuristic")]


def test_with_nothing_left_the_static_decision_answers(bench: Bench) -> None:
    version = bench.load("1")
    fallback = version.ladder.fallback
    assert fallback is not None
    ladder = Ladder(version.features, fallback.model_copy(update={"heuristic": None}), LastGood())
    broken = replace(version, scorer=NotANumber(), ladder=ladder)
    reply = reply_to(ask(bench.snapshot(broken, weights={"1": 1.0}), request([7])))
    assert (reply.scores, reply.decisions, reply.versions) == ([None], ["review"], [""])
    assert reply.reasons == [("ModelFailed", "StaticDecision")]


def test_a_project_without_fallback_fails_typed(bench: Bench) -> None:
    version = bench.load("1")
    strict = replace(version, ladder=Ladder(version.features, None, None), reader=Broken(Unavailable("gone")))
    answered = ask(bench.snapshot(strict, weights={"1": 1.0}), request([7]))
    error = replies(answered)[0]
    assert isinstance(error, Unavailable)
    assert str(error) == "features cannot be read in time and the project declares no serving.fallback"
    assert records(answered, [True], FixedClock()) == []


def test_late_requests_do_not_touch_the_store(bench: Bench) -> None:
    version = replace(bench.load("1"), reader=Broken(AssertionError("was read")))
    reply = reply_to(ask(bench.snapshot(version, weights={"1": 1.0}), request([7]), late="FeaturesLate"))
    assert reply.reasons == [("FeaturesLate", "FeatureDefaults")]


def test_a_shadow_scores_the_same_requests_with_its_own_features(bench: Bench) -> None:
    snapshot = bench.snapshot(bench.load("1"), bench.load("2"), weights={"1": 1.0}, shadow=("2",))
    answered = ask(snapshot, request([7, 8]))
    made = shadow_records(answered, FixedClock())
    assert [(r.version, r.role, r.request_id, len(r.features) // 8) for r in made] == [
        ("2", "shadow", "r/0", 2),
        ("2", "shadow", "r/1", 2),
    ]
    assert not {r.record_id for r in made} & {r.record_id for r in records(answered, [True], FixedClock())}


def test_a_shadow_with_the_same_features_reuses_the_vector(bench: Bench) -> None:
    twin = replace(bench.load("3"), shadow_reader=Broken(AssertionError("was read")))
    snapshot = bench.snapshot(bench.load("1"), twin, weights={"1": 1.0}, shadow=("3",))
    answered = ask(snapshot, request([7]))
    (made,) = shadow_records(answered, FixedClock())
    vector = answered.rows[0].values  # type: ignore[union-attr]
    assert (made.features, made.reasons) == (vector.tobytes(), ())


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
    (made,) = shadow_records(ask(snapshot, request([7])), FixedClock())
    assert (made.degraded, made.reasons, made.score) == (True, (reason,), None)


def vector_request(*vectors: list[float], pinned: str = "1", **columns: list[Any]) -> PredictRequest:
    n = len(vectors)
    sent = np.array(vectors, dtype=float)
    return PredictRequest("v", n, columns, [f"e{i}" for i in range(n)], [T0_US] * n, 0, pinned, vectors=sent)


def test_a_vector_that_was_read_scores_the_same_when_it_is_sent(bench: Bench) -> None:
    version = bench.load("1")
    snapshot = bench.snapshot(version, weights={"1": 1.0})
    read = ask(snapshot, request([7, 8], 290.0))
    sent = [result.values.tolist() for result in read.rows if result is not None and result.values is not None]
    unread = bench.snapshot(replace(version, reader=Broken(AssertionError("was read"))), weights={"1": 1.0})
    assert reply_to(ask(unread, vector_request(*sent))).scores == reply_to(read).scores


def test_what_is_missing_in_a_vector_is_the_features_default(bench: Bench) -> None:
    snapshot = bench.snapshot(bench.load("1"), weights={"1": 1.0})
    answered = ask(snapshot, vector_request([1.0, np.nan, 0.05]))
    assert answered.rows[0].values.tolist() == [1.0, 0.0, 0.05]  # type: ignore[union-attr]


def test_rows_with_sent_vectors_are_logged_as_such_with_the_keys_that_came(bench: Bench) -> None:
    snapshot = bench.snapshot(bench.load("1"), bench.load("2"), weights={"2": 1.0}, shadow=("1",))
    answered = ask(snapshot, vector_request([1.0, 50.0, 0.05], customer_id=[7]), vector_request([1.0, 9.0, 0.05]))
    made = records(answered, [True, True], FixedClock())
    assert [(one.role, one.version, one.unit, one.degraded) for one in made] == [
        ("vector", "1", "7", False),
        ("vector", "1", "", False),
    ]


def test_a_model_that_fails_on_a_sent_vector_leaves_the_heuristic(bench: Bench) -> None:
    version = replace(bench.load("1"), scorer=NotANumber())
    answered = ask(bench.snapshot(version, weights={"1": 1.0}), vector_request([1.0, 50.0, 0.95]))
    reply = reply_to(answered)
    assert (reply.scores, reply.decisions, reply.reasons) == ([0.95], ["decline"], [("ModelFailed", "Heuristic")])
    assert [one.role for one in records(answered, [True], FixedClock())] == ["vector"]
