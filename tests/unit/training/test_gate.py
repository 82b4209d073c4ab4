from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tidewheel.evaluation.intervals import Estimate
from tidewheel.findings import Decision, Finding
from tidewheel.spec.training import Gate
from tidewheel.training.evaluate import SliceResult
from tidewheel.training.gate import GateInput, decide_gate


def ap(value: float) -> Estimate:
    return Estimate(value, value - 0.05, value + 0.05, 1000)


def loss(low: float, high: float) -> SliceResult:
    return SliceResult("channel", "online", 40, Estimate((low + high) / 2, low, high, 500))


GOOD = GateInput(
    gate=Gate(metric="average_precision", min=0.6, max_loss=0.01, slices=("channel",)),
    candidate=ap(0.7),
    baseline=ap(0.5),
    champion=ap(0.69),
)


def test_a_good_candidate_passes_and_says_against_what() -> None:
    message = "average_precision is 0.700 (baseline 0.500, champion 0.690)"
    assert decide_gate(GOOD) == Decision("pass", (Finding("GatePassed", message, "info", "", 0.7, 0.6),))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"candidate": ap(0.6), "champion": None}, id="exactly the minimum"),
        pytest.param(
            {"champion": ap(0.71), "gate": Gate(min=0.0, max_loss=0.0125)}, id="a loss within what is accepted"
        ),
        pytest.param({"champion": None}, id="no champion yet"),
        pytest.param({"slices": (loss(-0.2, -0.005),)}, id="a slice that may be worse by chance"),
    ],
)
def test_the_gate_lets_pass(change: dict[str, Any]) -> None:
    assert decide_gate(replace(GOOD, **change)).action == "pass"


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        pytest.param(
            {"skew": Finding("SkewUnchecked", "no served value was compared", "critical")},
            "SkewUnchecked",
            "no served value was compared",
            id="served values that nobody compared",
        ),
        pytest.param(
            {"candidate": ap(0.599), "champion": None},
            "BelowMinimum",
            "average_precision is 0.599, minimum 0.600",
            id="just below the minimum",
        ),
        pytest.param(
            {"candidate": None},
            "BelowMinimum",
            "average_precision is not defined on the holdout's labels",
            id="no metric",
        ),
        pytest.param(
            {"baseline": ap(0.7)},
            "BelowBaseline",
            "average_precision is 0.700, the baseline reaches 0.700",
            id="a draw",
        ),
        pytest.param(
            {"champion": ap(0.72)},
            "WorseThanChampion",
            "average_precision is 0.700, the champion has 0.720 on the same rows; accepted loss 0.010",
            id="a loss beyond what is accepted",
        ),
        pytest.param(
            {"slices": (loss(-0.3, -0.1),)},
            "SliceWorse",
            "channel=online: loses 0.200 against the champion (95 % between 0.100 and 0.300), accepted loss 0.010",
            id="a slice that is surely worse",
        ),
        pytest.param(
            {"parity": Finding("ParityMismatch", "differs", "critical")},
            "ParityMismatch",
            "differs",
            id="a twin that differs",
        ),
    ],
)
def test_the_gate_refuses(change: dict[str, Any], reason: str, message: str) -> None:
    decision = decide_gate(replace(GOOD, **change))
    assert decision.action == "refuse"
    assert [(finding.reason, finding.message) for finding in decision.findings] == [(reason, message)]


def test_everything_that_is_wrong_is_told() -> None:
    decision = decide_gate(replace(GOOD, candidate=ap(0.4)))
    assert decision.reasons == ("BelowMinimum", "BelowBaseline", "WorseThanChampion")
