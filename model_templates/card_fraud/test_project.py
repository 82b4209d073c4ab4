"""Tests of this project: the spec is valid, the features say what their names promise."""

import sys
from pathlib import Path

import numpy as np

from tidewheel.features.load import load_features
from tidewheel.spec.load import load_project

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))  # generate.py is a script beside this file


def test_the_project_is_valid():
    project = load_project(FOLDER)
    features = load_features(FOLDER, project)
    assert features.names[0] == "card_n_tx_1h"
    assert len(set(features.names)) == len(features.names)


def test_the_label_is_never_an_input():
    project = load_project(FOLDER)
    assert project.label.column not in load_features(FOLDER, project).names


def test_every_day_can_be_generated_again():
    import generate

    world = generate.World(customers=50, terminals=80)
    first, again = (generate.tables_of(generate.Population(world), 9) for _ in range(2))
    assert first["transactions"].equals(again["transactions"])
    assert first["labels"].num_rows > 0


def test_a_price_rise_moves_amounts_and_nothing_else():
    import generate

    before = generate.World(customers=50, terminals=80)
    after = generate.World(customers=50, terminals=80, amount_factor=2.0, amount_from=5)
    tables = [generate.tables_of(generate.Population(world), 5)["transactions"] for world in (before, after)]
    amounts = [table["amount"].to_numpy() for table in tables]
    np.testing.assert_allclose(amounts[1], amounts[0] * 2, atol=0.011)
    assert tables[0].drop_columns(["amount"]).equals(tables[1].drop_columns(["amount"]))
