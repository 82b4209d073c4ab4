"""A bundle on disk to a version that may serve: verified, golden-checked, with the features it was trained on.

Runs in a background thread of the model server. It runs features.py of the bundle, after digest and signature were
verified.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tidewheel.bundle.loader import load_bundle
from tidewheel.bundle.plan import PlannedFeature
from tidewheel.bundle.signature import SignatureRefused, Trust, verify_trusted
from tidewheel.deployment.document import Variant
from tidewheel.errors import ContractViolation, TidewheelError
from tidewheel.features.load import load_features
from tidewheel.features.ports import OnlineStore
from tidewheel.features.reader import FeatureReader
from tidewheel.findings import Finding
from tidewheel.serving.decide import DecisionBands
from tidewheel.serving.ladder import Ladder
from tidewheel.serving.last_good import LastGood, RememberingStore
from tidewheel.serving.snapshot import Freshness, LoadedVersion, request_columns
from tidewheel.spec.load import load_project

Parse = Callable[[Path, str], Finding | None]  # folder and digest; why it must not be loaded


@dataclass(frozen=True)
class Stores:
    """The online store as each thread of a server sees it, and what was last read from it."""

    requests: OnlineStore
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
    remembering = RememberingStore(stores.requests, stores.memory) if keep else None
    return LoadedVersion(
        version=variant.version,
        digest=variant.digest,
        project=project,
        features=features,
        columns=request_columns(project, features),
        scorer=bundle.scorer,
        bands=DecisionBands(variant.decision),
        reader=FeatureReader(features, remembering or stores.requests),
        shadow_reader=FeatureReader(features, stores.shadow),
        watch_reader=FeatureReader(features, stores.watch),
        remembering=remembering,
        ladder=Ladder(features, fallback, stores.memory),
        freshness=Freshness(),
    )


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
