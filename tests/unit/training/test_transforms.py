"""Request functions say of a row the same alone, among others and in another order, or the gate hears of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from memory.tiny import write_project
from tidewheel.features.declaration import FeatureSet
from tidewheel.features.load import load_features
from tidewheel.findings import Finding
from tidewheel.spec.load import load_project
from tidewheel.training.transforms import transforms_finding

WINDOW = """\
import time
import numpy as np
from tidewheel.features import count, request, windowed

card = windowed("payments", by="customer", windows=["1d"], include_request=True, features={"n": count()})

"""


def features_with(folder: Path, function: str) -> FeatureSet:
    write_project(folder, features=f"{WINDOW}\n@request\ndef odd(amount, channel, n_1d):\n    {function}\n")
    return load_features(folder, load_project(folder))


def finding_of(folder: Path, function: str, n: int = 250) -> Finding | None:
    rng = np.random.default_rng(5)
    amount = pa.array(rng.uniform(-5, 300, n), mask=rng.random(n) < 0.1)
    channel = pa.array(rng.choice(["shop", "online"], n), mask=rng.random(n) < 0.1)
    rows = pa.table({"amount": amount, "channel": channel})
    made = pa.table({"n_1d": pa.array(rng.integers(1, 9, n)), "odd": pa.array(np.zeros(n))})
    return transforms_finding(features_with(folder, function), rows, made)


@pytest.mark.parametrize(
    "function",
    [
        pytest.param("return amount / n_1d", id="arithmetic"),
        pytest.param("return np.where(np.isnan(amount), -1.0, np.log1p(np.abs(amount)))", id="elementwise functions"),
        pytest.param("return np.array([len(c or '') for c in channel])", id="text, row by row"),
        pytest.param("return amount * np.inf", id="what becomes missing"),
    ],
)
def test_a_function_of_the_row_alone_is_stable(tmp_path: Path, function: str):
    assert finding_of(tmp_path, function) is None


@pytest.mark.parametrize(
    ("function", "says"),
    [
        pytest.param("return amount - np.nanmean(amount)", "alone", id="looks at the mean of the batch"),
        pytest.param("return np.argsort(amount) * 1.0", "alone", id="ranks the batch"),
        pytest.param("return np.nancumsum(amount)", "alone", id="sums up"),
        pytest.param("return np.random.random(len(amount))", "asked twice", id="draws a random number"),
        pytest.param("return amount + 1e-12 * len(amount)", "alone", id="differs in the last bits"),
        pytest.param("return np.where(np.arange(len(amount)) == 0, 0.0, amount)", "alone", id="treats the first apart"),
        pytest.param("return amount * (1 / (len(amount) != 1))", "fails on a row alone", id="needs several"),
    ],
)
def test_a_function_is_found_that(tmp_path: Path, function: str, says: str):
    finding = finding_of(tmp_path, function)
    assert finding is not None
    assert (finding.reason, finding.severity) == ("TransformUnstable", "critical")
    assert "odd: " in finding.message
    assert says in finding.message


def test_no_rows_are_no_finding(tmp_path: Path):
    assert finding_of(tmp_path, "return amount", n=0) is None
