"""A bundle on disk to a version that may serve: verified, golden-checked, with the features it was trained on.

Runs in a background thread of the model server. It runs features.py of the bundle, after digest and signature were
verified.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tidewheel.bundle.loader import load_bundle
from tidewheel.bundle.plan import PlannedFeature
from tidewheel.bundle.signature import SignatureRefused, Trust, verify_trusted
from tidewheel.clock import SystemClock
from tidewheel.deployment.document import Variant
from tidewheel.errors import ContractViolation, TidewheelError
from tidewheel.features.load import load_features
from tidewheel.features.ports import OnlineStore
from tidewheel.features.reader import FeatureReader
from tidewheel.findings import Finding
from tidewheel.serving.decide import DecisionBands
from tidewheel.serving.ladder import Ladder
from tidewheel.serving.last_good import LastGood
from tidewheel.serving.snapshot import Cost, Freshness, LoadedVersion, Scorer, request_columns
from tidewheel.spec.load import load_project

_MANY = 32
_LONG_US = 20_000
Parse = Callable[[Path, str], Finding | None]  # folder and digest; why it must not be loaded


@dataclass(frozen=True)
class Stores:
    """The online store as each thread of a server sees it, and what was last read from it."""

    shadow: OnlineStore
    watch: OnlineStore
    memory: LastGood


class LoadRefused(TidewheelError):
    """A version that must not serve; ``finding`` says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


def load_version(folder: Path, variant: Variant, stores: Stores, trust: Trust, parse: Parse) -> LoadedVersion:
    """``parse`` has a child read the models first: nothing is parsed here before it said yes.

    Raises LoadRefused with reason DigestMismatch, SignatureMissing, SignatureInvalid, GoldenMismatch, ParityMismatch,
    BundleInvalid or LoadFailed.
    """
    return _or_refused("DigestMismatch", variant, lambda: _load(folder, variant, stores, trust, parse))


def _load(folder: Path, variant: Variant, stores: Stores, trust: Trust, parse: Parse) -> LoadedVersion:
    verify_trusted(folder, variant.digest, trust())
    if (finding := parse(folder, variant.digest)) is not None:
        raise LoadRefused(replace(finding, subject=variant.version))
    return _or_refused("BundleInvalid", variant, lambda: _load_verified(folder, variant, stores, trust))


def _load_verified(folder: Path, variant: Variant, stores: Stores, trust: Trust) -> LoadedVersion:
    bundle = load_bundle(folder, variant.digest, trust())
    project = load_project(folder)
    features = load_features(folder, project)
    declared = zip(
        features.names, features.dtypes, features.sources, features.defaults, features.freshness_us, strict=True
    )
    planned = tuple(PlannedFeature(*one) for one in declared)
    if features.digest != bundle.plan.feature_digest or planned != bundle.plan.features:
        raise ContractViolation(f"{folder}: features.py does not declare the features of serving_plan.json")
    fallback = project.serving.fallback
    keep = fallback is not None and fallback.last_good_us is not None
    reader = FeatureReader(features, stores.shadow)
    return LoadedVersion(
        version=variant.version,
        digest=variant.digest,
        project=project,
        features=features,
        columns=request_columns(project, features),
        scorer=bundle.scorer,
        bands=DecisionBands(variant.decision),
        reader=reader,
        shadow_reader=FeatureReader(features, stores.shadow),
        watch_reader=FeatureReader(features, stores.watch),
        memory=stores.memory if keep else None,
        ladder=Ladder(reader, features, fallback, stores.memory),
        cost=measured(bundle.scorer, len(features.names)),
        freshness=Freshness(),
    )


def measured(scorer: Scorer, n_features: int) -> Cost:
    """What a model costs. It is warm afterwards: the first runs of a session are many times slower."""
    one, many = _run_us(scorer, 1, n_features, 5), _run_us(scorer, _MANY, n_features, 3)
    row_us = max(0.0, many - one) / (_MANY - 1)
    return Cost(max(0.0, one - row_us), row_us)


def _run_us(scorer: Scorer, n_rows: int, n_features: int, runs: int) -> float:
    rows, clock = np.zeros((n_rows, n_features), dtype=np.float32), SystemClock()
    scorer.score(rows)
    best_us = math.inf
    for _ in range(runs):
        began_us = clock.monotonic_us()
        scorer.score(rows)
        best_us = min(best_us, clock.monotonic_us() - began_us)
        if best_us > _LONG_US:
            break  # it is slow, which is all that is asked
    return best_us


def _or_refused(reason: str, variant: Variant, load: Callable[[], LoadedVersion]) -> LoadedVersion:
    try:
        return load()
    except LoadRefused:
        raise
    except SignatureRefused as error:
        raise LoadRefused(Finding(error.reason, str(error), "critical", variant.version)) from error
    except ContractViolation as error:
        found = "GoldenMismatch" if "GoldenMismatch" in str(error) else reason
        raise LoadRefused(Finding(found, str(error), "critical", variant.version)) from error
    except TidewheelError as error:
        raise LoadRefused(Finding("BundleInvalid", str(error), "critical", variant.version)) from error
    except Exception as error:  # project code and parsers raise what they like; the old version keeps serving
        message = f"{type(error).__name__}: {error}"
        raise LoadRefused(Finding("LoadFailed", message, "critical", variant.version)) from error
