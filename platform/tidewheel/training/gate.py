"""The gate: a list of pure checks that a candidate must pass on the holdout before it may serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tidewheel.evaluation.intervals import Estimate
from tidewheel.findings import Decision, Finding
from tidewheel.spec.training import Gate
from tidewheel.training.evaluate import SliceResult

PASS, REFUSE = "pass", "refuse"


@dataclass(frozen=True)
class GateInput:
    """The gate's metric of each model on the same rows; ``champion`` None where nothing serves yet."""

    gate: Gate
    candidate: Estimate | None
    baseline: Estimate | None
    champion: Estimate | None = None
    slices: tuple[SliceResult, ...] = ()
    parity: Finding | None = None
    skew: Finding | None = None
    transforms: Finding | None = None


Check = Callable[[GateInput], tuple[Finding, ...]]


def below_minimum(given: GateInput) -> tuple[Finding, ...]:
    """A metric that is not defined misses every minimum; exactly the minimum is enough."""
    gate = given.gate
    if given.candidate is None:
        return (Finding("BelowMinimum", f"{gate.metric} is not defined on the holdout's labels", "critical"),)
    value = given.candidate.value
    if value >= gate.min:
        return ()
    message = f"{gate.metric} is {value:.3f}, minimum {gate.min:.3f}"
    return (Finding("BelowMinimum", message, "critical", value=value, limit=gate.min),)


def below_baseline(given: GateInput) -> tuple[Finding, ...]:
    """A draw is not a win."""
    if given.candidate is None or given.baseline is None or given.candidate.value > given.baseline.value:
        return ()
    value, limit = given.candidate.value, given.baseline.value
    message = f"{given.gate.metric} is {value:.3f}, the baseline reaches {limit:.3f}"
    return (Finding("BelowBaseline", message, "critical", value=value, limit=limit),)


def worse_than_champion(given: GateInput) -> tuple[Finding, ...]:
    """The plain difference on the same rows; a loss of exactly ``max_loss`` is accepted."""
    if given.candidate is None or given.champion is None:
        return ()
    value, limit = given.candidate.value, given.champion.value - given.gate.max_loss
    if value >= limit:
        return ()
    message = (
        f"{given.gate.metric} is {value:.3f}, the champion has {given.champion.value:.3f} on the same rows; "
        f"accepted loss {given.gate.max_loss:.3f}"
    )
    return (Finding("WorseThanChampion", message, "critical", value=value, limit=limit),)


def slice_worse(given: GateInput) -> tuple[Finding, ...]:
    """Slices are small, so only a loss whose whole interval is beyond ``max_loss`` counts."""
    return tuple(
        Finding(
            "SliceWorse",
            f"{result.column}={result.value}: loses {-result.difference.value:.3f} against the champion "
            f"(95 % between {-result.difference.high:.3f} and {-result.difference.low:.3f}), "
            f"accepted loss {given.gate.max_loss:.3f}",
            "critical",
            subject=f"{result.column}={result.value}",
            value=result.difference.value,
            limit=-given.gate.max_loss,
        )
        for result in given.slices
        if result.difference.high < -given.gate.max_loss
    )


def twin_differs(given: GateInput) -> tuple[Finding, ...]:
    return (given.parity,) if given.parity else ()


def served_values_unproven(given: GateInput) -> tuple[Finding, ...]:
    """What the model would be served must be what it was trained on."""
    return (given.skew,) if given.skew else ()


def transforms_unstable(given: GateInput) -> tuple[Finding, ...]:
    """A request function must say of a row what it said at training, whatever comes with it."""
    return (given.transforms,) if given.transforms else ()


CHECKS: Sequence[Check] = (
    twin_differs,
    transforms_unstable,
    served_values_unproven,
    below_minimum,
    below_baseline,
    worse_than_champion,
    slice_worse,
)


def decide_gate(given: GateInput, checks: Sequence[Check] = CHECKS) -> Decision:
    """``pass`` with a GatePassed finding, or ``refuse`` with everything that is wrong."""
    findings = tuple(finding for check in checks for finding in check(given))
    if findings:
        return Decision(REFUSE, findings)
    value = given.candidate.value if given.candidate else None
    against = [f"baseline {given.baseline.value:.3f}"] if given.baseline else []
    against += [f"champion {given.champion.value:.3f}"] if given.champion else []
    message = f"{given.gate.metric} is {value:.3f}" + (f" ({', '.join(against)})" if against else "")
    return Decision(PASS, (Finding("GatePassed", message, "info", value=value, limit=given.gate.min),))
