from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tidewheel.bundle.golden import GoldenRequests, check_golden, read_golden, write_golden
from tidewheel.bundle.parity import Parity, parity, parity_finding
from tidewheel.errors import ContractViolation
from tidewheel.findings import Finding

GOLDEN = GoldenRequests(np.array([[1.0, np.nan], [2.0, 0.5]]), np.array([0.25, 0.75]))


def test_golden_requests_read_back_exactly_missing_values_included(tmp_path: Path) -> None:
    write_golden(tmp_path, GOLDEN)
    back = read_golden(tmp_path, 2)
    np.testing.assert_array_equal(back.vectors, GOLDEN.vectors)
    np.testing.assert_array_equal(back.scores, GOLDEN.scores)


def test_golden_requests_of_another_width_are_refused(tmp_path: Path) -> None:
    write_golden(tmp_path, GOLDEN)
    with pytest.raises(ContractViolation, match="must hold m vectors of 3 and m scores"):
        read_golden(tmp_path, 3)


def test_equal_scores_are_no_finding() -> None:
    assert check_golden(GOLDEN, lambda x: np.array([0.25, 0.75])) is None


@pytest.mark.parametrize("wrong", [0.76, np.nan])
def test_a_score_that_is_off_or_no_number_is_a_mismatch(wrong: float) -> None:
    def score(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([0.25, wrong])

    finding = check_golden(GOLDEN, score)
    assert finding is not None
    assert (finding.reason, finding.severity) == ("GoldenMismatch", "critical")
    assert finding.message == (
        f"1 of 2 golden requests differ by more than 1e-05; request 1 gave {wrong:.6f}, recorded is 0.750000"
    )


def test_parity_is_the_largest_difference() -> None:
    assert parity(np.array([0.1, 0.2]), np.array([0.1, 0.3])) == Parity(pytest.approx(0.1), 2)


def test_exactly_at_the_limit_is_parity() -> None:
    assert parity_finding(Parity(1e-5, 10)) is None


def test_over_the_limit_or_no_number_is_a_mismatch() -> None:
    assert parity_finding(Parity(2e-5, 10)) == Finding(
        "ParityMismatch", "the ONNX twin differs by up to 2e-05 on 10 rows, limit 1e-05", "critical", "", 2e-5, 1e-5
    )
    assert parity_finding(parity(np.array([0.1]), np.array([np.nan]))) is not None
