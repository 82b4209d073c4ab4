"""Why a reply is degraded: every reason that replies, the log and metrics may carry."""

from __future__ import annotations

FEATURES_LATE = "FeaturesLate"
FEATURES_UNAVAILABLE = "FeaturesUnavailable"
FEATURES_FAILED = "FeaturesFailed"
STALE_FEATURES = "StaleFeatures"  # followed by a colon and the view
MODEL_FAILED = "ModelFailed"
MODEL_LATE = "ModelLate"
OVERLOADED = "Overloaded"
LAST_GOOD = "LastGood"
FEATURE_DEFAULTS = "FeatureDefaults"
HEURISTIC = "Heuristic"
STATIC_DECISION = "StaticDecision"

# Why, and then which rung answered.
CAUSES = (
    FEATURES_LATE, FEATURES_UNAVAILABLE, FEATURES_FAILED, STALE_FEATURES, MODEL_FAILED, MODEL_LATE, OVERLOADED,
)  # fmt: skip
RUNGS = (LAST_GOOD, FEATURE_DEFAULTS, HEURISTIC, STATIC_DECISION)
