"""One training run: fit, judge on the holdout, gate, and write the bundle. Pure of registry, clock and terminal.

Called by ``tidewheel train`` with rows and champion at hand. Equal inputs give a bundle with an equal digest, so a run
that was killed can be run again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidewheel.bundle import files
from tidewheel.bundle.golden import write_golden
from tidewheel.bundle.manifest import write_manifest
from tidewheel.bundle.parity import Parity, parity, parity_finding
from tidewheel.bundle.plan import PlannedFeature, ServingPlan, spec_digest, write_plan
from tidewheel.bundle.reference import write_reference
from tidewheel.bundle.scorer import OnnxScorer
from tidewheel.bundle.trees import probes
from tidewheel.errors import naming
from tidewheel.evaluation.intervals import Estimate
from tidewheel.features.declaration import FeatureSet
from tidewheel.features.vector import model_input
from tidewheel.findings import Decision, Finding
from tidewheel.spec.project import ModelProject
from tidewheel.training.baseline import Baseline, fit_baseline
from tidewheel.training.evaluate import SliceResult, compare_slices, evaluate, rounded, unit_key
from tidewheel.training.frame import TrainingFrame, check_frame
from tidewheel.training.gate import GateInput, decide_gate
from tidewheel.training.golden import golden_of
from tidewheel.training.onnx_twin import onnx_twin
from tidewheel.training.reference import reference_of
from tidewheel.training.split import Split, known_positive
from tidewheel.training.strategies import STRATEGIES
from tidewheel.training.trainer import Settings, check_params, score, settings_for

if TYPE_CHECKING:
    import xgboost


@dataclass(frozen=True, eq=False)
class Champion:
    """What serves now: ``scores`` [n] on the rows of the frame, by its own features and model."""

    version: str
    digest: str
    scores: NDArray[np.float64]
    booster: xgboost.Booster | None = None  # only where the strategy continues from it


@dataclass(frozen=True, eq=False)
class RunInput:
    """``frame`` has labelled rows of at least the split; ``folder`` holds the project's own two files."""

    project: ModelProject
    features: FeatureSet
    folder: Path
    frame: TrainingFrame
    split: Split
    as_of_us: int
    champion: Champion | None = None
    transforms: Finding | None = None  # which request functions cannot be served as they were trained
    skew: Finding | None = None  # why served values are not known to equal their recomputation


@dataclass(frozen=True, eq=False)
class Candidate:
    """A version that was made and judged; its bundle is in the folder it was written to."""

    digest: str
    metrics: dict[str, Estimate]
    baseline: dict[str, Estimate]
    baseline_features: tuple[str, ...]
    champion: dict[str, Estimate] | None
    slices: tuple[SliceResult, ...]
    gate: Decision
    parity: Parity
    settings: Settings
    n_train: int
    n_train_positive: int
    n_holdout: int
    n_holdout_positive: int
    notes: tuple[str, ...]


def parts(given: RunInput) -> tuple[TrainingFrame, NDArray[np.intp]]:
    """The training rows, and the positions of the holdout's rows in ``given.frame``. Raises InputError if too few."""
    split, frame, training = given.split, given.frame, given.project.training
    train = frame.between(split.train_start_us, split.train_end_us)
    check_frame(train, "training window", split.train_start_us, split.train_end_us)
    in_test = (frame.event_time_us >= split.test_start_us) & (frame.event_time_us < split.test_end_us)
    if training.exclude_known_positives is not None:
        keys = frame.columns[given.project.entities[training.exclude_known_positives].key]
        in_test &= ~known_positive(keys, frame.y, frame.event_time_us, split, given.project.label.delay_us)
    rows = np.flatnonzero(in_test)
    check_frame(frame.take(rows), "holdout", split.test_start_us, split.test_end_us)
    return train, rows


def train_candidate(given: RunInput, target: Path, report: Callable[[str], None] = lambda step: None) -> Candidate:
    """Fit, judge and write the bundle into the empty folder ``target``; ``report`` is told each step's name.

    Raises InputError where the rows are too few or the parameters wrong.
    """
    project, training = given.project, given.project.training
    train, rows = parts(given)
    holdout = given.frame.take(rows)
    report("fit")
    check_params(training.params)
    settings = settings_for(training.params, len(train))
    champion = given.champion
    fitted = STRATEGIES[training.mode](train, settings, champion.booster if champion else None)
    report("evaluate")
    unit = unit_key(project)
    scores = score(fitted.booster, holdout.x)
    metrics = evaluate(scores, holdout, unit)
    baseline: Baseline = fit_baseline(train)
    baseline_metrics = evaluate(baseline.score(holdout), holdout, unit)
    champion_metrics: dict[str, Estimate] | None = None
    slices: tuple[SliceResult, ...] = ()
    if champion is not None:
        champion_scores = champion.scores[rows]
        champion_metrics = evaluate(champion_scores, holdout, unit)
        slices = compare_slices(scores, champion_scores, holdout, unit, training.gate.slices, training.gate.metric)
    report("export")
    twin = onnx_twin(fitted.booster)
    compared = np.vstack([model_input(holdout.x), probes(json.loads(fitted.booster.save_raw("json")), holdout.x[:50])])
    scorer = OnnxScorer(twin, len(train.names))
    measured = parity(score(fitted.booster, compared.astype(np.float64)), scorer.score(compared))
    metric = training.gate.metric
    gate = decide_gate(
        GateInput(
            gate=training.gate,
            candidate=metrics.get(metric),
            baseline=baseline_metrics.get(metric),
            champion=champion_metrics.get(metric) if champion_metrics else None,
            slices=slices,
            parity=parity_finding(measured),
            transforms=given.transforms,
            skew=given.skew if champion is not None else None,
        )
    )
    report("bundle")
    with naming(target):
        target.joinpath(files.MODEL_UBJ).write_bytes(bytes(fitted.booster.save_raw("ubj")))
        target.joinpath(files.MODEL_ONNX).write_bytes(twin)
        for name in (files.PROJECT, files.FEATURES):
            shutil.copyfile(given.folder / name, target / name)
        write_golden(target, golden_of(fitted.booster, holdout.x, scores))
        write_reference(target, reference_of(train, holdout, scores, given.split))
        write_plan(target, _plan(given, train, holdout, metrics))
        digest = write_manifest(target)
    return Candidate(
        digest=digest,
        metrics=metrics,
        baseline=baseline_metrics,
        baseline_features=baseline.names,
        champion=champion_metrics,
        slices=slices,
        gate=gate,
        parity=measured,
        settings=settings,
        n_train=len(train),
        n_train_positive=train.n_positive,
        n_holdout=len(holdout),
        n_holdout_positive=holdout.n_positive,
        notes=_notes(given, train, fitted.note),
    )


def _plan(given: RunInput, train: TrainingFrame, holdout: TrainingFrame, metrics: dict[str, Estimate]) -> ServingPlan:
    features, split = given.features, given.split
    planned = zip(
        features.names, features.dtypes, features.sources, features.defaults, features.freshness_us, strict=True
    )
    trained: dict[str, Any] = {
        "as_of_us": given.as_of_us,
        "window": {"start_us": split.train_start_us, "end_us": split.train_end_us},
        "holdout": {"start_us": split.test_start_us, "end_us": split.test_end_us},
        "label_delay_us": given.project.label.delay_us,
        "n_rows": len(train),
        "n_positive": train.n_positive,
        "n_holdout": len(holdout),
        "metrics": rounded(metrics),
    }
    return ServingPlan(
        project=given.project.name,
        features=tuple(PlannedFeature(*item) for item in planned),
        decision=dict(given.project.serving.decision),
        feature_digest=features.digest,
        spec_digest=spec_digest(given.project),
        trained=trained,
    )


def _notes(given: RunInput, train: TrainingFrame, fitted_note: str) -> tuple[str, ...]:
    notes = [fitted_note] if fitted_note else []
    wanted_us = given.split.train_end_us - given.split.train_start_us
    held_us = given.split.train_end_us - int(train.event_time_us[0])
    if held_us < 0.9 * wanted_us:
        notes.append(f"the history is short: trained on {held_us / 86_400e6:.1f} of {wanted_us / 86_400e6:.1f} days")
    return tuple(notes)
