"""The API server takes every object of every profile as it is, and finds every pod restricted."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from chart.test_chart import PROFILES, objects_of, template
from servers.kube import Kube


@pytest.fixture(scope="module")
def namespace(kube: Kube) -> Iterator[str]:
    """An empty one, of which a warning comes for every pod's template that is not restricted."""
    name = f"tw-{uuid.uuid4().hex[:6]}"
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    yield name
    kube.run("delete", "namespace", name, "--wait=false", check=False)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_api_server_takes_what_is_rendered(kube: Kube, namespace: str, profile: str) -> None:
    groups = kube.run("api-versions").split()
    objects = objects_of(template("-n", namespace, *PROFILES[profile]))
    known = [one for one in objects if one["apiVersion"] in groups]
    # A pod is refused where its account is not there, and a dry run makes none.
    kube.apply(*(one for one in known if one["kind"] == "ServiceAccount"))
    done = subprocess.run(
        [kube.kubectl, "apply", "--dry-run=server", "--validate=strict", "-f", "-"],
        input="\n---\n".join(json.dumps(one) for one in known), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "violate PodSecurity" not in done.stderr
    assert len(done.stdout.splitlines()) == len(known) > 30
