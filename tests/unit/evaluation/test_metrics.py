from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewheel.evaluation.metrics import Ranking, auc_roc, average_precision, card_precision_at_k, card_precision_by_day

ROWS = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=2, max_size=40)


def naive_average_precision(scores: list[float], labels: list[int]) -> float:
    """The textbook: at each distinct score, precision times the recall gained there."""
    total, gained = sum(labels), 0.0
    for limit in sorted(set(scores), reverse=True):
        above = [label for score, label in zip(scores, labels, strict=True) if score >= limit]
        here = [label for score, label in zip(scores, labels, strict=True) if score == limit]
        gained += sum(above) / len(above) * sum(here) / total
    return gained


def naive_auc(scores: list[float], labels: list[int]) -> float:
    pairs = [
        1.0 if p > n else 0.5 if p == n else 0.0
        for p, a in zip(scores, labels, strict=True) if a
        for n, b in zip(scores, labels, strict=True) if not b
    ]  # fmt: skip
    return sum(pairs) / len(pairs)


@given(ROWS)
def test_metrics_equal_the_textbook_ties_included(rows: list[tuple[int, bool, int]]) -> None:
    scores, labels = [float(r[0]) for r in rows], [int(r[1]) for r in rows]
    s, y = np.array(scores), np.array(labels)
    if sum(labels):
        assert average_precision(s, y) == pytest.approx(naive_average_precision(scores, labels))
    if 0 < sum(labels) < len(labels):
        assert auc_roc(s, y) == pytest.approx(naive_auc(scores, labels))


@given(ROWS)
def test_a_weight_of_two_is_the_row_twice(rows: list[tuple[int, bool, int]]) -> None:
    s, y = np.array([float(r[0]) for r in rows]), np.array([int(r[1]) for r in rows])
    w = np.array([r[2] for r in rows])
    ranking, repeated = Ranking.of(s, y), None
    if (y * w).sum() and ((1 - y) * w).sum():
        repeated = Ranking.of(np.repeat(s, w), np.repeat(y, w))
        assert ranking.average_precision(w.astype(float)) == pytest.approx(repeated.average_precision())
        assert ranking.auc_roc(w.astype(float)) == pytest.approx(repeated.auc_roc())


def test_without_a_positive_nothing_is_defined() -> None:
    s, y = np.array([0.1, 0.2]), np.array([0, 0])
    assert np.isnan([average_precision(s, y), auc_roc(s, y)]).all()


def naive_card_precision(
    scores: list[float], labels: list[int], cards: list[int], days: list[int], k: int
) -> list[float]:
    """The handbook's function in plain loops; ties go to the smaller card number."""
    found: set[int] = set()
    result = []
    for day in sorted(set(days)):
        rows = [i for i in range(len(days)) if days[i] == day and cards[i] not in found]
        best = {card: max(scores[i] for i in rows if cards[i] == card) for card in {cards[i] for i in rows}}
        top = sorted(best, key=lambda card: (-best[card], card))[:k]
        hits = [card for card in top if any(labels[i] for i in rows if cards[i] == card)]
        found.update(hits)
        result.append(len(hits) / k)
    return result


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 6), st.integers(0, 3)), min_size=1))
def test_card_precision_equals_the_handbook(rows: list[tuple[int, bool, int, int]]) -> None:
    scores, labels = [float(r[0]) for r in rows], [int(r[1]) for r in rows]
    cards, days = [r[2] for r in rows], [r[3] for r in rows]
    got = card_precision_by_day(np.array(scores), np.array(labels), np.array(cards), np.array(days), 2)
    assert got.tolist() == naive_card_precision(scores, labels, cards, days, 2)


def test_a_card_that_was_found_is_not_counted_on_a_later_day() -> None:
    scores, labels, days = np.array([0.9, 0.9]), np.array([1, 1]), np.array([0, 1])
    assert card_precision_at_k(scores, labels, np.array(["c", "c"]), days, k=1) == 0.5
    assert card_precision_at_k(scores, labels, np.array(["c", "d"]), days, k=1) == 1.0
