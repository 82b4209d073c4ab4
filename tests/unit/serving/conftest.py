"""Loaded versions of the tiny project over a memory store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from memory.online_store import MemoryOnlineStore
from memory.signing import trust
from memory.tiny import OTHER_FEATURES_PY, T0_US, caught_up, place_bundle
from tidewheel.deployment.document import DeploymentDocument, Variant
from tidewheel.features.stream import no_rows
from tidewheel.serving.last_good import LastGood
from tidewheel.serving.load import Parse, Stores, load_version
from tidewheel.serving.parse_child import ParseChild
from tidewheel.serving.snapshot import LoadedVersion, Snapshot, take_snapshot

BANDS = {"approve": 0.0, "review": 0.5, "decline": 0.9}


@dataclass
class Bench:
    """Two versions with different features; version 3 is version 1's twin by features with other trees."""

    bundles: Path
    digests: dict[str, str]
    store: MemoryOnlineStore
    parse: Parse
    memory: LastGood = field(default_factory=LastGood)

    def load(self, version: str) -> LoadedVersion:
        stores = Stores(self.store, self.store, self.memory)
        digest = self.digests[version]
        loaded = load_version(self.bundles / digest, Variant(version, digest, BANDS), stores, trust, self.parse)
        for state in loaded.features.states:
            self.store.write(state, 0, no_rows(state), caught_up(T0_US))
        return loaded

    def snapshot(self, *loaded: LoadedVersion, weights: dict[str, float], shadow: tuple[str, ...] = ()) -> Snapshot:
        variants = tuple(Variant(v.version, v.digest, BANDS) for v in loaded)
        champion = list(weights)[-1]
        document = DeploymentDocument("tiny", 5, "customer_id", "salt", champion, variants, weights, shadow)
        return take_snapshot(document, loaded)


@pytest.fixture(scope="session")
def tiny_bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("bundles")
    scratch = tmp_path_factory.mktemp("scratch")
    digests = {
        "1": place_bundle(folder, scratch / "1", seed=1),
        "2": place_bundle(folder, scratch / "2", seed=2, features=OTHER_FEATURES_PY),
        "3": place_bundle(folder, scratch / "3", seed=3),
    }
    return folder, digests


@pytest.fixture(scope="session")
def parser() -> Iterator[ParseChild]:
    child = ParseChild(os.environ)
    yield child
    child.stop()


@pytest.fixture
def bench(tiny_bundles: tuple[Path, dict[str, str]], parser: ParseChild) -> Bench:
    return Bench(tiny_bundles[0], tiny_bundles[1], MemoryOnlineStore(), parser.check)
