"""The template's generator makes the world that its prose describes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="module")
def generate(repository: Path) -> ModuleType:
    path = repository / "model_templates" / "card_fraud" / "generate.py"
    spec = importlib.util.spec_from_file_location("card_fraud_generate", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_payment_over_220_is_a_fraud(generate: ModuleType):
    payments = generate.day_of_payments(generate.Population(generate.World()), 0)
    assert payments["is_fraud"][payments["amount"] > generate.FRAUD_AMOUNT].all()


def test_frauds_ramp_up_over_the_first_weeks_and_then_stay_rare(generate: ModuleType):
    population = generate.Population(generate.World(customers=5000, terminals=10_000))
    shares = [float(generate.day_of_payments(population, day)["is_fraud"].mean()) for day in (0, 60, 90)]
    assert shares[0] < 0.002  # two terminals and three cards of the first day
    assert 0.005 < shares[1] < 0.013  # the handbook's data has .0084 over half a year
    assert 0.005 < shares[2] < 0.013


def test_two_terminals_a_day_stay_compromised_for_28_days(generate: ModuleType):
    world = generate.World()
    drawn = generate._drawn(world, generate.TERMINAL_FRAUD, 40, 28, 2, world.terminals)
    assert 50 <= len(drawn) <= 56
    before = generate._drawn(world, generate.TERMINAL_FRAUD, 39, 28, 2, world.terminals)
    assert len(np.intersect1d(drawn, before)) >= 50


def test_the_new_pattern_is_small_online_payments_at_night(generate: ModuleType):
    old, new = (generate.World(new_pattern_from=start) for start in (None, 3))
    before, after = (generate.day_of_payments(generate.Population(world), 3) for world in (old, new))
    added = len(after["amount"]) - len(before["amount"])
    assert added == generate.BURST_CARDS_A_DAY * generate.BURST_PAYMENTS
    frauds = after["is_fraud"] & (after["amount"] < 15.01) & (after["channel"] == "online")
    assert frauds.sum() >= added


def test_a_broken_feed_loses_amounts_while_callers_still_send_them(generate: ModuleType):
    tables = generate.tables_of(generate.Population(generate.World(feed_broken=range(2, 3))), 2)
    lost = tables["transactions"]["amount"].null_count / len(tables["transactions"])
    assert 0.5 < lost < 0.7
    assert tables["requests"]["amount"].null_count == 0


def test_a_late_feed_is_the_same_events_in_another_order(generate: ModuleType):
    tables = generate.tables_of(generate.Population(generate.World(feed_late=range(2, 3))), 2)
    assert tables["transactions"].sort_by("tx_id").equals(tables["requests"].sort_by("tx_id"))
    assert not tables["transactions"].equals(tables["requests"])


def test_labels_arrive_a_week_after_the_payments_they_judge(generate: ModuleType):
    population = generate.Population(generate.World())
    assert generate.labels_of(population, 6).num_rows == 0
    paid = generate.tables_of(population, 3)["requests"]
    assert generate.labels_of(population, 10)["tx_id"].equals(paid["tx_id"])
