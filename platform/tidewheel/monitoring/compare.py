"""Turns counts into facts: each feature against the references that are fit to compare with.

A reference is unfit where the feature's window was still filling: a 30-day count over 10 days of history is no
reference for one over 30. Where training is unfit, the version's own first days stand alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tidewheel.bundle.reference import Reference
from tidewheel.clock import DAY_US
from tidewheel.evaluation.drift import psi, sampling_limit
from tidewheel.evaluation.profiles import Profile, merged
from tidewheel.features.declaration import FeatureSet, RequestView, WindowedView
from tidewheel.monitoring.given import Comparison, FeatureFacts
from tidewheel.monitoring.served import ServedProfile

FIRST_DAYS = 7
FIRST_ROWS = 1000
MIN_REFERENCE_ROWS = 200


def filled_at_us(features: FeatureSet, first_event_us: Mapping[str, int | None]) -> dict[str, int]:
    """When each feature's window was full: the first event of its source, plus window and delay.

    A function of other features is as slow as the slowest of them. Absent: full at any time.
    """
    filled: dict[str, int] = {}
    for view in features.views:
        if isinstance(view, WindowedView):
            first = first_event_us.get(view.source)
            for feature in view.features:
                if first is not None:
                    filled[feature.name] = first + view.windows_us[feature.window_index] + view.delay_us
        elif isinstance(view, RequestView):
            behind = [filled[name] for name in view.arguments if name in filled]
            if behind:
                filled[view.name] = max(behind)
    return filled


def first_days(profiles: Sequence[ServedProfile]) -> list[ServedProfile]:
    """The windows of a version's first clean week of service.

    A drifted window joins only while there are fewer than FIRST_ROWS rows: later it would hide the very drift it
    showed, but a version that went live in the middle of a change is not held against the data before it.
    """
    chosen: list[ServedProfile] = []
    n_rows = 0
    for profile in profiles:
        if profile.end_us > profiles[0].start_us + FIRST_DAYS * DAY_US:
            break
        if not profile.drifted or n_rows < FIRST_ROWS:
            chosen.append(profile)
            n_rows += profile.score.n_rows if profile.score else 0
    return chosen


def previous_week(profiles: Sequence[ServedProfile], start_us: int) -> list[ServedProfile]:
    """The windows of the week that ended where the current window starts."""
    return [profile for profile in profiles if start_us - 7 * DAY_US < profile.end_us <= start_us]


def feature_facts(
    names: Sequence[str],
    sources: Mapping[str, str],
    current: ServedProfile,
    reference: Reference,
    past: Sequence[ServedProfile],
    filled: Mapping[str, int],
    mode: str,
) -> tuple[FeatureFacts, ...]:
    """One per feature that was served; ``mode`` is the spec's reference, ``past`` the version's clean profiles."""
    n_columns = len(names) + 1
    facts = []
    for name in names:
        now = current.features.get(name)
        if now is None:
            continue
        pairs = list(_references(name, reference, past, current.start_us, filled.get(name), mode))
        comparisons = tuple(_compare(label, base, now, n_columns) for label, base in pairs)
        facts.append(
            FeatureFacts(
                name,
                sources.get(name, "request"),
                now.n_rows,
                now.missing_ratio,
                max((base.missing_ratio for _, base in pairs), default=None),
                constant=now.n_known > 0 and now.low == now.high,
                usual_top_ratio=max((_top_ratio(base) for _, base in pairs), default=1.0),
                comparisons=comparisons,
            )
        )
    return tuple(facts)


def score_facts(
    current: ServedProfile, reference: Reference, past: Sequence[ServedProfile], filled: Mapping[str, int], mode: str,
    n_features: int,
) -> FeatureFacts | None:  # fmt: skip
    """The score; at training it was counted over the holdout, so that is fit once every window was full by then."""
    if current.score is None:
        return None
    pairs: list[tuple[str, Profile]] = []
    if mode == "training" and max(filled.values(), default=0) <= reference.end_us:
        pairs.append(("training", Profile(reference.score_edges, reference.score_counts)))
    label, windows = _own_windows(past, current.start_us, mode)
    base = merged(window.score for window in windows if window.score is not None)
    if base is not None and base.n_known >= MIN_REFERENCE_ROWS:
        pairs.append((label, base))
    comparisons = tuple(_compare(name, one, current.score, n_features + 1) for name, one in pairs)
    return FeatureFacts("score", "", current.score.n_rows, current.score.missing_ratio, comparisons=comparisons)


def _references(
    name: str, reference: Reference, past: Sequence[ServedProfile], start_us: int, filled: int | None, mode: str
) -> Iterator[tuple[str, Profile]]:
    trained = reference.feature(name)
    if mode == "training" and trained is not None and (filled is None or filled <= reference.start_us):
        yield "training", Profile(trained.edges, trained.counts, trained.n_missing)
    label, windows = _own_windows(past, start_us, mode)
    fit = [window for window in windows if filled is None or filled <= window.start_us]
    base = merged(window.features[name] for window in fit if name in window.features)
    if base is not None and base.n_rows >= MIN_REFERENCE_ROWS:
        yield label, base


def _own_windows(past: Sequence[ServedProfile], start_us: int, mode: str) -> tuple[str, list[ServedProfile]]:
    if mode == "previous_week":
        return "previous week", previous_week(past, start_us)
    return "first days", first_days(past)


def _compare(label: str, base: Profile, now: Profile, n_columns: int) -> Comparison:
    chance = sampling_limit(now.n_known, base.n_known, len(base.counts), n_columns)
    return Comparison(label, psi(base.counts, now.counts), chance, base.n_known)


def _top_ratio(base: Profile) -> float:
    return 1.0 if base.low is not None and base.low == base.high else base.top_ratio
