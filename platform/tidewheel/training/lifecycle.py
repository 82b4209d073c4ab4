"""From a project and a time to a registered version: rows, champion, training run, bundle, registry, alias.

Called by ``tidewheel train``. Everything can be killed and run again: equal data gives an equal digest, and the
registry knows a digest once.
"""

from __future__ import annotations

import importlib
import json
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tidewheel import __version__
from tidewheel.bundle.files import MODEL_UBJ
from tidewheel.bundle.loader import load_bundle
from tidewheel.bundle.place import place, scratch
from tidewheel.bundle.plan import spec_digest
from tidewheel.bundle.registry import CHALLENGER, CHAMPION, ModelRegistry, Version
from tidewheel.bundle.signature import SigningKey, Trust, sign_bundle
from tidewheel.clock import utc_text
from tidewheel.evaluation.intervals import Estimate
from tidewheel.features.declaration import FeatureSet
from tidewheel.features.load import load_features
from tidewheel.features.vector import model_input
from tidewheel.findings import Finding
from tidewheel.spec.load import load_project
from tidewheel.spec.project import ModelProject
from tidewheel.spec.scalars import duration_text
from tidewheel.training.dataset import Dataset, FeatureEngine, Report, aligned, labelled_dataset
from tidewheel.training.gate import PASS
from tidewheel.training.run import Candidate, Champion, RunInput, train_candidate
from tidewheel.training.split import Split, split_for

GATE_TAG = "gate"
DECISION_TAG = "tidewheel.decision"
RESULT_TAG = "tidewheel.result"
N_STEPS = 8  # what ``on_step`` is told in one run


@dataclass(frozen=True, eq=False)
class Workshop:
    """What a run works with; ``bundles`` is the local store of bundles by digest, ``registry`` None registers not."""

    engine: FeatureEngine
    sources: Mapping[str, Path]
    bundles: Path
    registry: ModelRegistry | None
    key: SigningKey  # signs what is made
    trust: Trust  # whose champion is believed
    on_step: Callable[[str], None] = lambda step: None
    on_features: Report | None = None
    skew: Finding | None = None  # why served values are not known to equal their recomputation


@dataclass(frozen=True, eq=False)
class Trained:
    """What ``tidewheel train`` did; ``version`` and ``alias`` None where nothing was registered or set."""

    candidate: Candidate
    split: Split
    as_of_us: int
    version: Version | None
    champion_version: str | None
    alias: str | None
    n_unmatched: int

    def to_json(self) -> dict[str, Any]:
        made = self.candidate
        return {
            "version": self.version.number if self.version else None,
            "digest": made.digest,
            "as_of": utc_text(self.as_of_us),
            "gate": {"action": made.gate.action, "findings": [asdict(finding) for finding in made.gate.findings]},
            "metrics": _estimates(made.metrics),
            "baseline": {**_estimates(made.baseline), "features": list(made.baseline_features)},
            "champion": {**_estimates(made.champion), "version": self.champion_version} if made.champion else None,
            "slices": [asdict(result) for result in made.slices],
            "parity": asdict(made.parity),
            "window": {
                "train_start": utc_text(self.split.train_start_us),
                "train_end": utc_text(self.split.train_end_us),
                "holdout_start": utc_text(self.split.test_start_us),
                "holdout_end": utc_text(self.split.test_end_us),
                "n_train": made.n_train,
                "n_train_positive": made.n_train_positive,
                "n_holdout": made.n_holdout,
                "n_holdout_positive": made.n_holdout_positive,
                "n_labels_unmatched": self.n_unmatched,
            },
            "alias": self.alias,
            "notes": list(made.notes),
        }


def train_version(
    project: ModelProject,
    features: FeatureSet,
    folder: Path,
    shop: Workshop,
    as_of_us: int,
    decision: str = "",
) -> Trained:
    """Make, judge and register a version as of a time. ``folder`` holds project.yaml and features.py."""
    split = split_for(project, as_of_us)
    # XGBoost takes seconds to import, and the engine that computes features leaves a core idle meanwhile.
    threading.Thread(target=importlib.import_module, args=("xgboost",), daemon=True).start()
    shop.on_step("champion")
    serving = _champion_version(project, shop)
    shop.on_step("features")
    data = labelled_dataset(
        shop.engine,
        project,
        features,
        shop.sources,
        split.train_start_us,
        split.test_end_us,
        as_of_us,
        shop.on_features,
    )
    champion = _scored_champion(serving, project, features, data, split, as_of_us, shop) if serving else None
    given = RunInput(project, features, folder, data.frame, split, as_of_us, champion, data.transforms, shop.skew)
    with scratch(shop.bundles) as made:
        candidate = train_candidate(given, made, shop.on_step)

        def fill(target: Path) -> None:
            for path in made.iterdir():
                shutil.copyfile(path, target / path.name)

        placed = shop.bundles / candidate.digest
        place(placed, candidate.digest, fill)
    sign_bundle(placed, candidate.digest, shop.key)
    shop.on_step("register")
    trained = Trained(candidate, split, as_of_us, None, serving.number if serving else None, None, data.n_unmatched)
    if shop.registry is None:
        return trained
    version = _register(project, features, trained, serving, decision, shop)
    return replace(trained, version=version, alias=_set_alias(project, version, shop.registry))


def resumed(project: ModelProject, registry: ModelRegistry, decision: str) -> dict[str, Any] | None:
    """The result of an earlier run of the decision that registered its version and then died, its alias set now."""
    made = next((v for v in registry.versions(project.name) if v.tags.get(DECISION_TAG) == decision), None)
    if made is None or RESULT_TAG not in made.tags:
        return None
    result: dict[str, Any] = json.loads(made.tags[RESULT_TAG])
    return {**result, "version": made.number, "alias": _set_alias(project, made, registry)}


def _champion_version(project: ModelProject, shop: Workshop) -> Version | None:
    if shop.registry is None:
        return None
    number = shop.registry.aliases(project.name).get(CHAMPION)
    return shop.registry.version(project.name, number) if number else None


def _scored_champion(
    serving: Version,
    project: ModelProject,
    features: FeatureSet,
    data: Dataset,
    split: Split,
    as_of_us: int,
    shop: Workshop,
) -> Champion:
    """The champion's scores on the holdout, by its own features.py as it was."""
    assert shop.registry is not None
    folder = shop.bundles / serving.digest
    shop.registry.download(serving, folder)
    bundle = load_bundle(folder, serving.digest, shop.trust())
    booster = None
    if project.training.mode == "stateful":
        import xgboost

        booster = xgboost.Booster(model_file=folder / MODEL_UBJ)
    frame = data.frame
    test = (frame.event_time_us >= split.test_start_us) & (frame.event_time_us < split.test_end_us)
    scores = np.full(len(frame), np.nan)
    if bundle.plan.feature_digest == features.digest:
        scores[test] = bundle.scorer.score(model_input(frame.x[test]))
        return Champion(serving.number, serving.digest, scores, booster)
    its_project = load_project(folder)
    its_features = load_features(folder, its_project)
    its = labelled_dataset(
        shop.engine, its_project, its_features, shop.sources, split.test_start_us, split.test_end_us, as_of_us
    )
    its_scores = bundle.scorer.score(model_input(its.frame.x))
    scores[test] = aligned(data.event_ids.filter(test), its.event_ids, its_scores)
    return Champion(serving.number, serving.digest, scores, booster)


def _register(
    project: ModelProject,
    features: FeatureSet,
    trained: Trained,
    serving: Version | None,
    decision: str,
    shop: Workshop,
) -> Version:
    assert shop.registry is not None
    candidate, split = trained.candidate, trained.split
    gate = "pass" if candidate.gate.action == PASS else "refused"
    findings = json.dumps([asdict(finding) for finding in candidate.gate.findings])
    tags = {
        GATE_TAG: gate,
        "tidewheel.findings": findings,
        "tidewheel.as_of": utc_text(trained.as_of_us),
        "tidewheel.window": f"{utc_text(split.train_start_us)}/{utc_text(split.train_end_us)}",
        "tidewheel.holdout": f"{utc_text(split.test_start_us)}/{utc_text(split.test_end_us)}",
        "tidewheel.label_delay": duration_text(project.label.delay_us),
        "tidewheel.n_rows": str(candidate.n_train),
        "tidewheel.spec_digest": spec_digest(project),
        "tidewheel.feature_digest": features.digest,
        "tidewheel.code_version": __version__,
        "tidewheel.parent_version": serving.number if serving else "none",
        "tidewheel.parent_digest": serving.digest if serving else "none",
        RESULT_TAG: json.dumps(trained.to_json()),
        **({DECISION_TAG: decision} if decision else {}),
    }
    params = {
        **{name: str(value) for name, value in candidate.settings.params.items()},
        "n_estimators": str(candidate.settings.n_rounds),
        "mode": project.training.mode,
    }
    version = shop.registry.register(
        project.name,
        shop.bundles / candidate.digest,
        candidate.digest,
        tags=tags,
        metrics=_flat_metrics(candidate),
        params=params,
    )
    for key in (
        GATE_TAG,
        "tidewheel.findings",
        RESULT_TAG,
        DECISION_TAG,
    ):  # the same bundle may meet another champion later
        if key in tags and version.tags.get(key) != tags[key]:
            shop.registry.tag(project.name, version.number, key, tags[key])
    return shop.registry.version(project.name, version.number)


def _set_alias(project: ModelProject, version: Version, registry: ModelRegistry) -> str | None:
    if version.tags.get(GATE_TAG) != "pass":
        return None
    aliases = registry.aliases(project.name)
    if aliases.get(CHAMPION) == version.number:
        return CHAMPION
    if CHAMPION in aliases:
        registry.set_alias(project.name, CHALLENGER, version.number)
        return CHALLENGER
    if project.needs_approval:
        return None
    registry.set_alias(project.name, CHAMPION, version.number)
    return CHAMPION


def _flat_metrics(candidate: Candidate) -> dict[str, float]:
    flat: dict[str, float] = {"parity_max_difference": candidate.parity.max_difference}
    for prefix, estimates in (
        ("", candidate.metrics),
        ("baseline_", candidate.baseline),
        ("champion_", candidate.champion or {}),
    ):
        for name, estimate in estimates.items():
            flat[f"{prefix}{name}"] = estimate.value
            if not prefix:
                flat[f"{name}_low"], flat[f"{name}_high"] = estimate.low, estimate.high
    return flat


def _estimates(metrics: Mapping[str, Estimate] | None) -> dict[str, Any]:
    return {name: asdict(estimate) for name, estimate in (metrics or {}).items()}
