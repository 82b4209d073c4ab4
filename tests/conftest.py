"""Fixtures that every tier shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from servers.kafka import KafkaServer

ROOT = Path(__file__).resolve().parent.parent

# Importing Feast costs seconds of every apply; tests of it switch it on.
os.environ.setdefault("TIDEWHEEL_FEAST", "off")


@pytest.fixture(autouse=True)
def _environment_is_left_as_it_was() -> Iterator[None]:
    """What a test or a library sets (MLflow sets its tracking URI) must not reach the processes of the next test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """One broker for all tests that need a real one; each makes topics of its own."""
    from servers.kafka import kafka_server

    with kafka_server(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data sets, which are not part of the project: TIDEWHEEL_TEST_DATA or ../shared/data."""
    folder = Path(os.environ.get("TIDEWHEEL_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data sets are not at {folder}; set TIDEWHEEL_TEST_DATA to their folder")
    return folder
