"""The monitor's checks: pure functions of a MonitorInput, each returning what it found.

A false alarm costs more trust than a late one: each check needs an effect worth acting on and more than chance.
Called by ``run``; every reason has a page in docs/runbooks/.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from tidewheel.findings import Finding
from tidewheel.monitoring.given import FeatureFacts, MonitorInput, SkewFacts

MIN_ROWS = 200  # fewer rows say nothing about a distribution
MIN_EVENTS = 50
MISSING_JUMP = 0.05  # share of missing values above the usual one
STUCK_RATIO = 0.5  # half of all values are one value that was rare before
STUCK_USUAL_RATIO = 0.05
EVENTS_RATIO = 0.5  # of the usual number of events
DEGRADED_RATIO = 0.05
LABELS_RATIO = 0.9
CHANCE = 1e-6  # an accident less likely than this is none

Check = Callable[[MonitorInput], Sequence[Finding]]


def findings_of(given: MonitorInput) -> tuple[Finding, ...]:
    """All findings of all checks, in the order of the checks."""
    return tuple(finding for check in CHECKS for finding in check(given))


def feed_is_broken(given: MonitorInput) -> list[Finding]:
    """Missing values, a stuck column or too few events; a feature only where its source has no finding itself."""
    found = list(_broken_sources(given))
    named = {finding.subject.split(".")[0] for finding in found}
    found.extend(_broken_feature(feature) for feature in _broken_features(given) if feature.source not in named)
    return found


def features_have_drifted(given: MonitorInput) -> list[Finding]:
    """One finding per feature whose distribution left every reference. Not looked at behind a broken feed."""
    broken = _broken_names(given)
    return [
        _drift("FeatureDrift", feature.name, feature, given.drift_limit)
        for feature in given.features
        if not broken & {feature.source, feature.name} and _has_drifted(feature, given.drift_limit)
    ]


def score_has_drifted(given: MonitorInput) -> list[Finding]:
    """The score over its references. Behind a broken feed the feed is the news."""
    if given.score is None or _broken_names(given) or not _has_drifted(given.score, given.drift_limit):
        return []
    return [_drift("ScoreDrift", "score", given.score, given.drift_limit)]


def performance_has_dropped(given: MonitorInput) -> list[Finding]:
    """Only when the whole interval is under the limit."""
    measured = given.performance
    if measured is None or not measured.high < measured.minimum:
        return []
    message = (
        f"{measured.metric} is {measured.value:.3f} ({measured.low:.3f} to {measured.high:.3f}) on {measured.n} "
        f"mature labels, limit {measured.minimum:g}"
    )
    return [Finding("PerformanceDrop", message, "critical", measured.metric, measured.value, measured.minimum)]


def serving_is_degraded(given: MonitorInput) -> list[Finding]:
    """Share of replies from the fallback ladder."""
    if given.n_predictions < MIN_EVENTS:
        return []
    ratio = given.n_degraded / given.n_predictions
    chance = 3.0 * math.sqrt(DEGRADED_RATIO * (1 - DEGRADED_RATIO) / given.n_predictions)
    if ratio <= DEGRADED_RATIO + chance:
        return []
    message = f"{ratio:.1%} of {given.n_predictions} replies were degraded, limit {DEGRADED_RATIO:.0%}"
    return [Finding("DegradedServing", message, "warning", given.project, ratio, DEGRADED_RATIO)]


def labels_are_missing(given: MonitorInput) -> list[Finding]:
    """Labels that should have been there for a whole window already."""
    labels = given.labels
    if labels is None or labels.n_expected < MIN_EVENTS:
        return []
    ratio = labels.n_arrived / labels.n_expected
    if ratio >= LABELS_RATIO:
        return []
    message = (
        f"{labels.source}: {labels.n_arrived} of {labels.n_expected} labels arrived that should be mature "
        f"({ratio:.1%}), limit {LABELS_RATIO:.0%}"
    )
    return [Finding("LabelsMissing", message, "warning", labels.source, ratio, LABELS_RATIO)]


def served_values_differ(given: MonitorInput) -> list[Finding]:
    """Served against recomputed, per feature. Not behind a broken feed: what it repairs later differs then."""
    if _broken_names(given):
        return []
    found = []
    for skew in given.skew:
        ratio = skew.n_different / skew.n_rows if skew.n_rows else 0.0
        if ratio > given.max_mismatch_ratio:
            message = (
                f"{skew.feature}: {skew.n_different} of {skew.n_rows} served values differ from their offline "
                f"recomputation ({ratio:.2%}), limit {given.max_mismatch_ratio:.2%}{_details(skew)}"
            )
            found.append(Finding("TrainServeSkew", message, "warning", skew.feature, ratio, given.max_mismatch_ratio))
    return found


def _details(skew: SkewFacts) -> str:
    parts = []
    if skew.delta_max:
        parts.append(f"half of them by more than {skew.delta_p50:.3g}, at most by {skew.delta_max:.3g}")
    if skew.n_missing:
        parts.append(f"{skew.n_missing} were missing when served")
    if skew.n_extra:
        parts.append(f"{skew.n_extra} are missing offline")
    return f"; {', '.join(parts)}" if parts else ""


def served_values_lag(given: MonitorInput) -> list[Finding]:
    """The source with the worst share of values that missed events; its features lag together."""
    if _broken_names(given):
        return []
    worst: dict[str, tuple[float, SkewFacts]] = {}
    for skew in given.skew:
        ratio = skew.n_lagged / skew.n_rows if skew.n_rows else 0.0
        if ratio > given.max_lagged_ratio and ratio > worst.get(skew.source, (0.0, skew))[0]:
            worst[skew.source] = (ratio, skew)
    return [
        Finding(
            "FeaturesLag",
            f"{source}: {skew.n_lagged} of {skew.n_rows} values of {skew.feature} were served before events that had "
            f"happened reached the store ({ratio:.2%}), limit {given.max_lagged_ratio:.2%}",
            "warning", source, ratio, given.max_lagged_ratio,
        )
        for source, (ratio, skew) in worst.items()
    ]  # fmt: skip


CHECKS: Sequence[Check] = (
    feed_is_broken,  # first: it explains away what follows
    features_have_drifted,
    score_has_drifted,
    performance_has_dropped,
    serving_is_degraded,
    labels_are_missing,
    served_values_differ,
    served_values_lag,
)


def _broken_sources(given: MonitorInput) -> Iterator[Finding]:
    for source in given.sources:
        usual = source.usual_n_events
        if usual is not None and usual >= MIN_EVENTS and source.n_events < EVENTS_RATIO * usual:
            limit = EVENTS_RATIO * usual
            message = f"{source.name}: {source.n_events} events, usually {usual:.0f}"
            yield Finding("FeedBroken", message, "critical", source.name, float(source.n_events), limit)
        for column in source.columns:
            subject, n_known = f"{source.name}.{column.name}", round(column.n_rows * (1 - column.missing_ratio))
            if _jumped(column.missing_ratio, column.usual_missing_ratio, column.n_rows):
                message = f"{subject}: {column.missing_ratio:.1%} missing, usually {column.usual_missing_ratio:.1%}"
                limit = column.usual_missing_ratio + MISSING_JUMP
                yield Finding("FeedBroken", message, "critical", subject, column.missing_ratio, limit)
            elif n_known < MIN_EVENTS:
                continue
            elif column.top_ratio == 1.0 and _is_no_accident(column.usual_top_ratio, n_known):
                message = f"{subject}: is constant, usually it varies"
                yield Finding("FeedBroken", message, "critical", subject, 1.0, column.usual_top_ratio)
            elif column.top_ratio >= STUCK_RATIO and column.usual_ratio_of_top < STUCK_USUAL_RATIO:
                message = (
                    f"{subject}: {column.top_ratio:.1%} of the values are one value that was "
                    f"{column.usual_ratio_of_top:.1%} of them before"
                )
                yield Finding("FeedBroken", message, "critical", subject, column.top_ratio, STUCK_RATIO)


def _broken_features(given: MonitorInput) -> Iterator[FeatureFacts]:
    for feature in given.features:
        usual, n_known = feature.usual_missing_ratio, round(feature.n_rows * (1 - feature.missing_ratio))
        missing = usual is not None and _jumped(feature.missing_ratio, usual, feature.n_rows)
        stuck = feature.constant and n_known >= MIN_EVENTS and _is_no_accident(feature.usual_top_ratio, n_known)
        if missing or stuck:
            yield feature


def _broken_feature(feature: FeatureFacts) -> Finding:
    usual = feature.usual_missing_ratio or 0.0
    if _jumped(feature.missing_ratio, usual, feature.n_rows):
        message = (
            f"{feature.source}: feature {feature.name} is {feature.missing_ratio:.1%} missing, usually {usual:.1%}"
        )
        return Finding("FeedBroken", message, "critical", feature.name, feature.missing_ratio, usual + MISSING_JUMP)
    message = f"{feature.source}: feature {feature.name} is constant, usually it varies"
    return Finding("FeedBroken", message, "critical", feature.name, 1.0, feature.usual_top_ratio)


def _broken_names(given: MonitorInput) -> set[str]:
    """Sources and features behind a broken feed; a function of the request is behind the request's source."""
    found = feed_is_broken(given)
    names = {finding.subject for finding in found} | {finding.subject.split(".")[0] for finding in found}
    if names & {source.name for source in given.sources}:
        names.add("request")
    return names


def _jumped(ratio: float, usual: float, n: int) -> bool:
    if n < MIN_EVENTS:
        return False
    return ratio - usual > max(MISSING_JUMP, 4.0 * math.sqrt(usual * (1.0 - usual) / n))


def _is_no_accident(usual_top_ratio: float, n: int) -> bool:
    return usual_top_ratio < 1.0 and n * math.log(max(usual_top_ratio, 1e-12)) < math.log(CHANCE)


def _has_drifted(feature: FeatureFacts, limit: float) -> bool:
    if feature.n_rows * (1 - feature.missing_ratio) < MIN_ROWS or not feature.comparisons:
        return False
    return all(one.psi > max(limit, one.chance_limit) for one in feature.comparisons)


def _drift(reason: str, subject: str, facts: FeatureFacts, limit: float) -> Finding:
    nearest = min(facts.comparisons, key=lambda one: one.psi)
    over = max(limit, nearest.chance_limit)
    message = (
        f"{subject}: PSI {nearest.psi:.2f} against {nearest.reference}, limit {over:.2f} "
        f"({facts.n_rows} rows against {nearest.n_reference})"
    )
    return Finding(reason, message, "warning", subject, nearest.psi, over)
