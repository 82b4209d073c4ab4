"""A real Kubernetes with KServe. Without one these tests are skipped, by name and with what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.kube import Installation, Kube, install

HOW = 'run: eval "$(infra/test-cluster)"'


@pytest.fixture(scope="session")
def kube() -> Kube:
    """The API server that KUBECONFIG names."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip(f"no Kubernetes: KUBECONFIG is not set; {HOW}")
    found = Kube()
    if not found.api.has_kind("serving.kserve.io/v1beta1", "InferenceService"):
        pytest.skip(f"the cluster that KUBECONFIG names has no KServe; {HOW}")
    return found


@pytest.fixture(scope="session")
def installation(kube: Kube, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The chart in a namespace of its own, with bundled stores and without Airflow."""
    if not os.environ.get("TIDEWHEEL_TEST_IMAGES"):
        pytest.skip(f"no images: TIDEWHEEL_TEST_IMAGES is not set; {HOW}")
    with install(kube, repository, tmp_path_factory.mktemp("installation")) as made:
        yield made
