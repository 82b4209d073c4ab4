"""The benchmarks that start servers or import Evidently run and say what they must; no figure is tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench_run import FIELDS, lines_of
from servers.kafka import need_kafka
from servers.redis import need_redis

pytestmark = pytest.mark.integration


LINES = [("drift", 4), ("serving", 18), ("lifecycle", 7), ("online_read", 8), ("stream_kafka", 6)]
WITHOUT_REDIS = ("drift",)


@pytest.mark.parametrize(("name", "n_lines"), LINES)
def test_a_benchmark_runs_and_gives_its_lines(repository: Path, name: str, n_lines: int) -> None:
    if name not in WITHOUT_REDIS:
        need_redis()
    if name == "stream_kafka":
        need_kafka()
    found = lines_of(repository, name)[name]
    assert len(found) == n_lines
    assert all(line.keys() == FIELDS for line in found)
