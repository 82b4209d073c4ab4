"""The pod of a job carries no right and no key that it does not need."""

from __future__ import annotations

from tidewheel.pipelines.job_pod import SIGNING_KEY, job_pod
from tidewheel.pipelines.settings import PodSettings

SETTINGS = PodSettings("team", "image:1", env_secrets=("stores", "control"), pull_secrets=("registry",))


def test_a_pod_gets_the_environment_of_the_installation():
    pod = job_pod(SETTINGS, "churn", "monitor", signs=False, deadline_s=60)
    (container,) = pod["spec"]["containers"]
    assert container["envFrom"] == [
        {"configMapRef": {"name": "tidewheel-env"}},
        {"secretRef": {"name": "stores"}},
        {"secretRef": {"name": "control"}},
    ]
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert (pod["spec"]["activeDeadlineSeconds"], pod["metadata"]["namespace"]) == (60, "team")


def test_only_a_pod_that_signs_mounts_the_private_key():
    plain, signing = (job_pod(SETTINGS, "churn", "train", signs=signs, deadline_s=60) for signs in (False, True))
    assert "signing" not in str(plain["spec"]).replace("SIGNING", "signing").lower()
    (container,) = signing["spec"]["containers"]
    assert {"name": "signing-key", "mountPath": SIGNING_KEY, "readOnly": True} in container["volumeMounts"]
    assert {"name": "TIDEWHEEL_SIGNING_KEY_FILE", "value": f"{SIGNING_KEY}/signing.pem"} in container["env"]


def test_every_place_that_is_written_to_is_a_volume():
    (container,) = job_pod(SETTINGS, "churn", "train", signs=False, deadline_s=60)["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    written = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert written == {"/var/lib/tidewheel", "/tmp"}
