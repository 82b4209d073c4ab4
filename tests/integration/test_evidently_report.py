"""The Evidently page: drawn in a child process, robust against columns that Evidently cannot read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidewheel.adapters.evidently_report import draw_in_child
from tidewheel.errors import Unavailable

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]


def samples(folder: Path, **columns: tuple[np.ndarray, np.ndarray]) -> tuple[Path, Path]:
    paths = (folder / "reference.parquet", folder / "current.parquet")
    for index, path in enumerate(paths):
        pq.write_table(pa.table({name: pair[index] for name, pair in columns.items()}), path)
    return paths


def test_a_page_shows_what_can_be_shown(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    plain, moved = rng.normal(size=12_000), rng.normal(1, 1, size=12_000)
    infinite = np.where(rng.random(12_000) < 0.1, np.inf, plain)
    empty, constant = np.full(12_000, np.nan), np.ones(12_000)
    paths = samples(
        tmp_path,
        shifted_amount=(plain, moved),
        with_infinity=(plain, infinite),
        all_empty=(plain, empty),
        all_constant=(plain, constant),
    )
    page = draw_in_child(*paths, tmp_path / "drift.html", "fraud as of today")
    html = page.read_text()
    assert len(html) > 100_000
    assert "shifted_amount" in html
    assert "with_infinity" in html
    assert "all_empty" not in html
    assert "PSI, reference deciles" in html
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_without_a_usable_column_the_reason_is_told_and_no_page_is_left(tmp_path: Path) -> None:
    paths = samples(tmp_path, x=(np.ones(300), np.ones(300)))
    with pytest.raises(Unavailable, match="no column has values in both samples"):
        draw_in_child(*paths, tmp_path / "drift.html", "t")
    assert not (tmp_path / "drift.html").exists()


def test_a_page_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    paths = samples(tmp_path, x=(np.arange(300.0), np.arange(300.0)))
    with pytest.raises(Unavailable, match="took longer than 0 s; the findings are recorded"):
        draw_in_child(*paths, tmp_path / "drift.html", "t", timeout_s=0.1)
