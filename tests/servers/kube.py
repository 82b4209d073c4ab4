"""A cluster for tests: kubectl and helm as a person uses them, and one installation of the chart with a driver pod."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from servers.mlflow import free_port
from tidewheel.adapters.kubernetes_api import KubernetesApi
from waiting import until

READY_S = 420
ENVIRONMENT = ("configMapRef", "tidewheel-env"), ("secretRef", "tidewheel-secrets"), ("secretRef", "tidewheel-control")


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f'{name} is not on PATH; run: eval "$(infra/test-cluster)"')
    return found


class Kube:
    """``run`` for kubectl; ``api`` for what tests ask again and again."""

    def __init__(self) -> None:
        self.api = KubernetesApi()
        self.kubectl = tool("kubectl")

    def run(self, *arguments: str, stdin: str | None = None, check: bool = True, timeout_s: float = 300) -> str:
        done = subprocess.run(
            [self.kubectl, *arguments], input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def apply(self, *objects: Mapping[str, Any]) -> None:
        self.run("apply", "-f", "-", stdin="\n---\n".join(json.dumps(one) for one in objects))

    @property
    def context(self) -> str:
        return self.run("config", "current-context").strip()


@dataclass
class Installation:
    """The chart ``tidewheel`` in ``namespace``; ``environment`` is that of a person at a terminal outside."""

    kube: Kube
    namespace: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    forwards: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def kubectl(self, *arguments: str, **options: Any) -> str:
        return self.kube.run("-n", self.namespace, *arguments, **options)

    def address(self, service: str) -> str:
        """The ClusterIP, which answers where the test runs on a node; else what a port-forward gives."""
        return self.kubectl("get", "service", service, "-o", "jsonpath={.spec.clusterIP}")

    def secret(self, name: str, key: str) -> str:
        data = json.loads(self.kubectl("get", "secret", name, "-o", "json"))["data"]
        return base64.b64decode(data[key]).decode()

    def forward(self, service: str, port: int) -> int:
        """A port on loopback that leads to a service's."""
        here = free_port()
        command = [self.kube.kubectl, "-n", self.namespace, "port-forward", f"service/{service}", f"{here}:{port}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout is not None
        assert b"Forwarding" in process.stdout.readline()
        self.forwards.append(process)
        return here

    def inside(self, *command: str, timeout_s: float = 300) -> str:
        """Run a command in the driver pod, which has the platform's image and the jobs' environment."""
        return self.kubectl("exec", "driver", "--", *command, timeout_s=timeout_s)

    def tidewheel(self, *arguments: str, code: int = 0, timeout_s: float = 300) -> dict[str, Any]:
        """A command of tidewheel outside of the cluster, against it; what it printed as JSON."""
        import sys

        done = subprocess.run(
            [sys.executable, "-m", "tidewheel", *arguments, "--output", "json"],
            env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else {"error": done.stderr}

    def job(self, project: str, *command: str, timeout_s: float = 600) -> dict[str, Any]:
        """A job as Airflow starts it, here in the driver pod; what it printed as JSON."""
        out = self.inside(
            "python", "-m", "tidewheel.apps.job", project, "--", *command, "--output", "json", timeout_s=timeout_s
        )
        result: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        return result

    def project(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", "modelproject", name, "-o", "json"))
        return found

    def status(self, name: str) -> dict[str, Any]:
        status: dict[str, Any] = self.project(name).get("status", {})
        return status

    def pods(self, project: str, component: str = "model-server") -> list[dict[str, Any]]:
        labels = f"tidewheel.dev/project={project},app.kubernetes.io/name={component}"
        items: list[dict[str, Any]] = json.loads(self.kubectl("get", "pods", "-l", labels, "-o", "json"))["items"]
        return [one for one in items if "deletionTimestamp" not in one["metadata"]]

    def generations(self, project: str) -> list[int]:
        """What each ready pod serves, by the pod itself."""
        import httpx

        told = []
        for pod in self.pods(project):
            try:
                answer = httpx.get(f"http://{pod['status'].get('podIP')}:8080/status", timeout=2)
                told.append(int(answer.json()["generation"]))
            except (httpx.HTTPError, ValueError, KeyError):
                told.append(-1)
        return told

    def helm(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([tool("helm"), "-n", self.namespace, *arguments], capture_output=True, text=True,
                              timeout=READY_S + 60, check=False)  # fmt: skip
        assert done.returncode == 0 or not check, f"helm {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done

    def upgrade(self, repository: Path, *values: str) -> None:
        """Install the chart's small preset, or change what is installed, and wait until all of it is ready."""
        chart = repository / "charts" / "tidewheel"
        self.helm("upgrade", "--install", "tidewheel", str(chart), "--wait", "--timeout", f"{READY_S}s",
                  "-f", str(chart / "values-small.yaml"), "--set", "airflow.refreshSeconds=10",
                  "--set", f"images.repository={os.environ['TIDEWHEEL_TEST_IMAGES']}",
                  "--set-string", f"images.tag={os.environ.get('TIDEWHEEL_TEST_TAG', '')}", *values)  # fmt: skip

    def close(self) -> None:
        for process in self.forwards:
            process.terminate()
            process.wait(timeout=10)


@contextmanager
def install(kube: Kube, repository: Path, folder: Path, *, airflow: bool = False) -> Iterator[Installation]:
    """Helm's install, and all of it ready; the namespace goes afterwards unless TIDEWHEEL_KEEP_CLUSTER is set."""
    namespace = os.environ.get("TIDEWHEEL_TEST_NAMESPACE") or f"tw-{uuid.uuid4().hex[:6]}"
    made = Installation(kube, namespace, folder)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
    try:
        kube.run("apply", "--server-side", "--force-conflicts", "-f",
                 str(repository / "charts" / "tidewheel-crds" / "templates"))  # fmt: skip
        made.upgrade(repository, "--set", f"airflow.enabled={str(airflow).lower()}")
        _let_in(made)
        yield made
    finally:
        made.close()
        if not os.environ.get("TIDEWHEEL_KEEP_CLUSTER"):
            _remove(kube, namespace)


def _let_in(made: Installation) -> None:
    """What a person outside needs, and the driver pod inside."""
    made.kube.apply(_driver(made))
    made.kubectl("wait", "--for=condition=Ready", "pod/driver", "--timeout=120s")
    key = made.folder / "signing.pem"
    key.write_text(made.secret("tidewheel-signing-key", "signing.pem"))
    key.chmod(0o600)
    store = f"http://127.0.0.1:{made.forward('tidewheel-object-store', 8333)}"
    made.environment.update(
        {
            "TIDEWHEEL_OBJECT_STORE": f"s3://tidewheel?endpoint={store}",
            "AWS_ACCESS_KEY_ID": made.secret("tidewheel-secrets", "AWS_ACCESS_KEY_ID"),
            "AWS_SECRET_ACCESS_KEY": made.secret("tidewheel-secrets", "AWS_SECRET_ACCESS_KEY"),
            "TIDEWHEEL_SIGNING_KEY_FILE": str(key),
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{made.forward('tidewheel-mlflow', 5000)}",
            "MLFLOW_TRACKING_USERNAME": made.secret("tidewheel-control", "MLFLOW_TRACKING_USERNAME"),
            "MLFLOW_TRACKING_PASSWORD": made.secret("tidewheel-control", "MLFLOW_TRACKING_PASSWORD"),
            "TIDEWHEEL_TARGET": made.kube.context,
            "TIDEWHEEL_NAMESPACE": made.namespace,
        }
    )


def _driver(made: Installation) -> dict[str, Any]:
    """A pod as a job is, that waits for commands."""
    image = f"{os.environ['TIDEWHEEL_TEST_IMAGES']}/platform:{os.environ.get('TIDEWHEEL_TEST_TAG') or '0.1.0'}"
    user = 10001
    mounts = {
        "home": "/var/lib/tidewheel",
        "tmp": "/tmp",
        "trusted": "/etc/keys/trusted",
        "signing": "/etc/keys/signing",
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "driver", "namespace": made.namespace,
                     "labels": {"app.kubernetes.io/part-of": "tidewheel", "app.kubernetes.io/name": "job"}},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": True, "runAsUser": user, "runAsGroup": user, "fsGroup": user,
                                "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "driver", "image": image, "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "100000"],
                "envFrom": [{kind: {"name": name}} for kind, name in ENVIRONMENT],
                "env": [{"name": "TIDEWHEEL_TRUSTED_KEYS", "value": mounts["trusted"]},
                        {"name": "TIDEWHEEL_SIGNING_KEY_FILE", "value": f"{mounts['signing']}/signing.pem"},
                        {"name": "TIDEWHEEL_HOME", "value": mounts["home"]}],
                "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                    "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
            }],
            "volumes": [{"name": "home", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}},
                        {"name": "trusted", "configMap": {"name": "tidewheel-trusted-keys"}},
                        {"name": "signing", "secret": {"secretName": "tidewheel-signing-key", "defaultMode": 0o440}}],
        },
    }  # fmt: skip


def _remove(kube: Kube, namespace: str) -> None:
    """ModelProjects first: their finalizer needs the controller."""
    kube.run("-n", namespace, "annotate", "modelprojects", "--all", "tidewheel.dev/confirm-delete=true", check=False)
    kube.run("-n", namespace, "delete", "modelprojects", "--all", "--timeout=60s", check=False)
    kube.run("delete", "namespace", namespace, "--wait=false", check=False)


def eventually(check: Callable[[], Any], limit_s: float = 60) -> None:
    """``until`` for a check that calls the cluster: each look takes a while by itself."""
    until(lambda: bool(check()), limit_s=limit_s)
