"""The memory registry and MLflow behave alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pytest

from memory.model_registry import MemoryRegistry
from servers.mlflow import free_port, mlflow_server
from tidewheel.adapters.mlflow_registry import MlflowRegistry
from tidewheel.bundle.manifest import MANIFEST, SIGNATURE, verify, write_manifest
from tidewheel.bundle.registry import ModelRegistry, Version
from tidewheel.errors import ContractViolation, NotFound, Unavailable


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


@pytest.fixture(params=["memory", pytest.param("mlflow", marks=pytest.mark.integration)])
def registry(request: pytest.FixtureRequest) -> ModelRegistry:
    if request.param == "memory":
        return MemoryRegistry()
    return MlflowRegistry(request.getfixturevalue("mlflow_uri"))


@pytest.fixture
def name() -> str:
    """A model of this test's own: the server is shared."""
    return f"m-{uuid4().hex[:12]}"


class Register(Protocol):
    def __call__(self, name: str, content: bytes = b"1", **tags: str) -> Version: ...


@pytest.fixture
def register(registry: ModelRegistry, tmp_path: Path) -> Register:
    def call(name: str, content: bytes = b"1", **tags: str) -> Version:
        folder = tmp_path / f"bundle-{content.decode()}"
        folder.mkdir(exist_ok=True)
        (folder / "model.ubj").write_bytes(b"model " + content)
        (folder / "plan.json").write_bytes(b"{}")
        digest = write_manifest(folder)
        return registry.register(name, folder, digest, tags=tags, metrics={"ap": 0.5}, params={"depth": "3"})

    return call


def test_an_unknown_model_has_no_versions_and_no_aliases(registry: ModelRegistry, name: str) -> None:
    assert (registry.versions(name), registry.aliases(name)) == ((), {})


def test_versions_count_up_and_carry_digest_run_and_tags(
    registry: ModelRegistry, register: Register, name: str
) -> None:
    first, second = register(name, b"1", gate="pass"), register(name, b"2", gate="refused")
    assert [version.number for version in registry.versions(name)] == ["1", "2"]
    assert registry.version(name, "2") == second
    assert first.digest != second.digest
    assert first.run_id
    assert first.tags == {"gate": "pass", "tidewheel.digest": first.digest}


def test_the_same_bundle_is_registered_once(registry: ModelRegistry, register: Register, name: str) -> None:
    assert register(name, b"1") == register(name, b"1")
    assert len(registry.versions(name)) == 1


def test_a_folder_that_is_not_what_the_digest_names_is_refused(
    registry: ModelRegistry, tmp_path: Path, name: str
) -> None:
    (tmp_path / "model.ubj").write_bytes(b"x")
    digest = write_manifest(tmp_path)
    (tmp_path / "model.ubj").write_bytes(b"y")
    with pytest.raises(ContractViolation, match=r"model\.ubj was changed"):
        registry.register(name, tmp_path, digest, tags={}, metrics={}, params={})
    assert registry.versions(name) == ()


def test_an_alias_moves_and_goes(registry: ModelRegistry, register: Register, name: str) -> None:
    register(name, b"1")
    register(name, b"2")
    registry.set_alias(name, "champion", "1")
    registry.set_alias(name, "challenger", "2")
    registry.set_alias(name, "champion", "2")
    assert registry.aliases(name) == {"champion": "2", "challenger": "2"}
    registry.delete_alias(name, "challenger")
    registry.delete_alias(name, "challenger")
    assert registry.aliases(name) == {"champion": "2"}


def test_an_alias_on_a_missing_version_is_refused(registry: ModelRegistry, register: Register, name: str) -> None:
    register(name)
    with pytest.raises(NotFound, match=f"{name}: no version 7; see 'tidewheel status'"):
        registry.set_alias(name, "champion", "7")
    assert registry.aliases(name) == {}


def test_a_tag_is_set_and_overwritten(registry: ModelRegistry, register: Register, name: str) -> None:
    register(name)
    registry.tag(name, "1", "gate", "pass")
    registry.tag(name, "1", "gate", "refused")
    assert registry.version(name, "1").tags["gate"] == "refused"
    with pytest.raises(NotFound):
        registry.tag(name, "2", "gate", "pass")


def test_a_download_is_whole_and_verified_and_may_be_repeated(
    registry: ModelRegistry, register: Register, name: str, tmp_path: Path
) -> None:
    version, target = register(name), tmp_path / "store" / "target"
    registry.download(version, target)
    registry.download(version, target)
    verify(target, version.digest)
    assert sorted(path.name for path in target.iterdir()) == [MANIFEST, "model.ubj", "plan.json"]
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_signature_travels_with_the_version_and_may_be_replaced(
    registry: ModelRegistry, register: Register, name: str, tmp_path: Path
) -> None:
    unsigned = register(name, b"1")
    assert registry.signature(unsigned) is None
    (tmp_path / "bundle-1" / SIGNATURE).write_bytes(b"first")
    assert register(name, b"1") == unsigned
    assert registry.signature(unsigned) == b"first"
    (tmp_path / "bundle-1" / SIGNATURE).write_bytes(b"somebody else's")
    register(name, b"1")
    assert registry.signature(unsigned) == b"first"
    registry.put_signature(unsigned, b"second")
    registry.download(unsigned, tmp_path / "target")
    assert (tmp_path / "target" / SIGNATURE).read_bytes() == b"second"
    verify(tmp_path / "target", unsigned.digest)
    (tmp_path / "bundle-2").mkdir()
    (tmp_path / "bundle-2" / SIGNATURE).write_bytes(b"with the first upload")
    assert registry.signature(register(name, b"2")) == b"with the first upload"


def test_a_damaged_copy_is_replaced(registry: ModelRegistry, register: Register, name: str, tmp_path: Path) -> None:
    version, target = register(name), tmp_path / "target"
    registry.download(version, target)
    (target / "model.ubj").write_bytes(b"damaged")
    registry.download(version, target)
    assert (target / "model.ubj").read_bytes() == b"model 1"


def test_bytes_that_do_not_match_the_digest_leave_nothing_behind(
    registry: ModelRegistry, register: Register, name: str, tmp_path: Path
) -> None:
    version, store = register(name), tmp_path / "store"
    wrong = Version(name, version.number, "0" * 64, version.run_id)
    with pytest.raises((ContractViolation, KeyError)):
        registry.download(wrong, store / "target")
    assert not store.exists() or list(store.iterdir()) == []


@pytest.mark.integration
def test_stock_mlflow_loads_and_shows_a_version(mlflow_uri: str, name: str, tmp_path: Path) -> None:
    import numpy as np
    import xgboost

    x, y = np.arange(60.0).reshape(20, 3), np.arange(20) % 2
    booster = xgboost.train(
        {"objective": "binary:logistic"}, xgboost.DMatrix(x, y, feature_names=["a", "b", "c"]), num_boost_round=3
    )
    (tmp_path / "model.ubj").write_bytes(bytes(booster.save_raw("ubj")))
    digest = write_manifest(tmp_path)
    registry = MlflowRegistry(mlflow_uri)
    version = registry.register(
        name, tmp_path, digest, tags={"tidewheel.parent": ""}, metrics={"ap": 0.5}, params={"depth": "3"}
    )

    import mlflow

    mlflow.set_tracking_uri(mlflow_uri)
    loaded = mlflow.xgboost.load_model(f"models:/{name}/{version.number}")
    assert loaded.feature_names == ["a", "b", "c"]
    assert np.array_equal(
        loaded.predict(xgboost.DMatrix(x, feature_names=["a", "b", "c"])),
        booster.predict(xgboost.DMatrix(x, feature_names=["a", "b", "c"])),
    )
    client = mlflow.MlflowClient()
    run = client.get_run(version.run_id)
    assert (run.info.status, run.data.metrics, run.data.params) == ("FINISHED", {"ap": 0.5}, {"depth": "3"})
    assert run.data.tags["tidewheel.digest"] == digest
    stored = client.get_model_version(name, version.number)
    assert stored.source.startswith("models:/m-")
    assert [output.model_id for output in run.outputs.model_outputs] == [stored.source.removeprefix("models:/")]


@pytest.mark.integration
def test_a_version_that_somebody_else_registered_has_no_digest_and_is_not_downloaded(
    mlflow_uri: str, name: str, tmp_path: Path
) -> None:
    import mlflow

    client = mlflow.MlflowClient(mlflow_uri)
    client.create_registered_model(name)
    client.create_model_version(name, source="s3://elsewhere/model")
    registry = MlflowRegistry(mlflow_uri)
    (version,) = registry.versions(name)
    assert version.digest == ""
    with pytest.raises(ContractViolation, match="was not registered by tidewheel"):
        registry.download(version, tmp_path / "target")


@pytest.mark.integration
def test_a_server_that_is_not_there_is_unavailable() -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Unavailable, match=rf"{uri}: MLflow does not answer .*; run 'tidewheel up'"):
        MlflowRegistry(uri, timeout_s=2.0).aliases("m")
