from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from tidewheel.bundle.reference import FeatureReference, Reference, read_reference, reference_from_json, write_reference
from tidewheel.errors import ContractViolation

REFERENCE = Reference(
    start_us=0,
    end_us=10,
    n_rows=10,
    per_day=5.0,
    label_ratio=0.1,
    features=(FeatureReference("a", (1.0, 2.0), (3, 3, 2), 2),),
    score_edges=(0.5,),
    score_counts=(9, 1),
)


def test_a_reference_reads_back_as_it_was_written(tmp_path: Path) -> None:
    write_reference(tmp_path, REFERENCE)
    assert read_reference(tmp_path) == REFERENCE


def test_the_missing_share_counts_all_rows() -> None:
    assert REFERENCE.features[0].missing_ratio == 0.2


def test_counts_that_do_not_fit_their_edges_are_refused() -> None:
    with pytest.raises(ContractViolation, match="r: counts and edges do not fit for scores"):
        reference_from_json({**asdict(REFERENCE), "score_counts": [1, 2, 3]}, "r")


def test_a_missing_field_is_refused() -> None:
    body = asdict(REFERENCE)
    del body["per_day"]
    with pytest.raises(ContractViolation, match="r: cannot be read: KeyError"):
        reference_from_json(body, "r")
