"""The model registry on MLflow: a run with lineage, a logged model that holds the bundle, a version that points at it.

The version is created last and carries the digest, so a crash leaves at most a run without a version. Stock MLflow
loads what is stored here: ``mlflow.xgboost.load_model("models:/<name>/<version>")``.
"""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tidewheel.adapters.mlflow_rest import MlflowRest
from tidewheel.bundle.files import MODEL_UBJ
from tidewheel.bundle.manifest import MANIFEST, MAX_MANIFEST_BYTES, SIGNATURE, parse_manifest, verify
from tidewheel.bundle.place import place
from tidewheel.bundle.registry import Version
from tidewheel.bundle.signature import MAX_SIGNATURE_BYTES
from tidewheel.clock import Clock, SystemClock
from tidewheel.errors import Conflict, ContractViolation, NotFound

DIGEST_TAG = "tidewheel.digest"
FOLDER = "bundle"  # of the artifacts of a version
_PAGE = 200
_MAX_RUN_TAG = 5000  # longer ones stay on the version, whose limit is 100,000


class MlflowRegistry:
    """A ModelRegistry; every call is plain REST with a time-out, safe to use from several threads."""

    def __init__(self, tracking_uri: str, timeout_s: float = 10.0, clock: Clock | None = None) -> None:
        self._rest = MlflowRest(tracking_uri, timeout_s)
        self._clock = clock or SystemClock()

    def close(self) -> None:
        self._rest.close()

    def register(
        self,
        name: str,
        bundle: Path,
        digest: str,
        *,
        tags: Mapping[str, str],
        metrics: Mapping[str, float],
        params: Mapping[str, str],
    ) -> Version:
        entries = verify(bundle, digest)
        signature = bundle / SIGNATURE
        if (existing := self._with_digest(name, digest)) is not None:
            if signature.is_file() and self.signature(existing) is None:
                self.put_signature(existing, signature.read_bytes())
            return existing
        self._ensure_model(name)
        now_ms = self._clock.now_us() // 1000
        experiment_id = self._experiment(name)
        run = self._rest.post(
            "runs/create",
            {
                "experiment_id": experiment_id,
                "run_name": f"{name}-{digest[:8]}",
                "start_time": now_ms,
                "tags": _pairs(
                    {
                        "mlflow.user": getpass.getuser(),
                        "mlflow.source.name": "tidewheel train",
                        "mlflow.source.type": "LOCAL",
                        **{key: value for key, value in tags.items() if len(value) <= _MAX_RUN_TAG},
                        DIGEST_TAG: digest,
                    }
                ),
            },
        )["run"]["info"]
        model = self._rest.post(
            "logged-models",
            {
                "experiment_id": experiment_id,
                "name": name,
                "model_type": "tidewheel-bundle",
                "source_run_id": run["run_id"],
                "tags": _pairs({DIGEST_TAG: digest}),
            },
        )["model"]["info"]
        model_id = model["model_id"]
        measured = [
            {"key": key, "value": value, "timestamp": now_ms, "step": 0, "model_id": model_id}
            for key, value in metrics.items()
        ]
        self._rest.post("runs/log-batch", {"run_id": run["run_id"], "params": _pairs(params), "metrics": measured})
        for file in (*entries, *((SIGNATURE,) if signature.is_file() else ()), MANIFEST):
            self._rest.upload(model["artifact_uri"], f"{FOLDER}/{file}", (bundle / file).read_bytes())
        for file, text in _mlmodel_files(run["run_id"], model_id).items():
            self._rest.upload(model["artifact_uri"], file, text.encode())
        self._rest.patch(f"logged-models/{model_id}", {"model_id": model_id, "status": "LOGGED_MODEL_READY"})
        self._rest.post("runs/outputs", {"run_id": run["run_id"], "models": [{"model_id": model_id, "step": 0}]})
        self._rest.post(
            "runs/update",
            {"run_id": run["run_id"], "status": "FINISHED", "end_time": self._clock.now_us() // 1000},
        )
        self._rest.post(
            "model-versions/create",
            {
                "name": name,
                "source": f"models:/{model_id}",
                "run_id": run["run_id"],
                "model_id": model_id,
                "tags": _pairs({**tags, DIGEST_TAG: digest}),
            },
        )
        return self._first_with_digest(name, digest)

    def versions(self, name: str) -> tuple[Version, ...]:
        found: list[Version] = []
        token = ""
        while True:
            page = self._rest.get(
                "model-versions/search", filter=f"name = '{name}'", max_results=_PAGE, page_token=token
            )
            found += [_version(item) for item in page.get("model_versions", ())]
            token = page.get("next_page_token", "")
            if not token:
                return tuple(sorted(found, key=lambda item: int(item.number)))

    def version(self, name: str, number: str) -> Version:
        try:
            return _version(self._rest.get("model-versions/get", name=name, version=number)["model_version"])
        except NotFound as error:
            raise NotFound(f"{name}: no version {number}; see 'tidewheel status'") from error

    def aliases(self, name: str, *, fresh: bool = False) -> dict[str, str]:
        try:
            model = self._rest.get("registered-models/get", name=name)["registered_model"]
        except NotFound:
            return {}
        return {item["alias"]: str(item["version"]) for item in model.get("aliases", ())}

    def all_aliases(self) -> dict[str, dict[str, str]]:
        """Of every model, by its name."""
        found: dict[str, dict[str, str]] = {}
        token = ""
        while True:
            page = self._rest.get("registered-models/search", max_results=_PAGE, page_token=token)
            for model in page.get("registered_models", ()):
                named = {one["alias"]: str(one["version"]) for one in model.get("aliases", ())}
                found[model["name"]] = named
            token = page.get("next_page_token", "")
            if not token:
                return found

    def set_alias(self, name: str, alias: str, number: str) -> None:
        self.version(name, number)
        self._rest.post("registered-models/alias", {"name": name, "alias": alias, "version": number})

    def delete_alias(self, name: str, alias: str) -> None:
        if alias in self.aliases(name):
            self._rest.delete("registered-models/alias", {"name": name, "alias": alias})

    def tag(self, name: str, number: str, key: str, value: str) -> None:
        self.version(name, number)
        self._rest.post("model-versions/set-tag", {"name": name, "version": number, "key": key, "value": value})

    def download(self, version: Version, target: Path) -> None:
        if not version.digest:
            raise ContractViolation(
                f"{version.name}: version {version.number} was not registered by tidewheel: it has no bundle digest"
            )

        def fill(folder: Path) -> None:
            uri = self._artifacts(version)
            self._rest.download(uri, f"{FOLDER}/{MANIFEST}", folder / MANIFEST, MAX_MANIFEST_BYTES)
            where = f"{version.name} version {version.number}"
            entries = parse_manifest((folder / MANIFEST).read_bytes(), version.digest, where)
            for file, entry in entries.items():
                self._rest.download(uri, f"{FOLDER}/{file}", folder / file, entry.size_bytes)
            if (signature := self.signature(version)) is not None:
                (folder / SIGNATURE).write_bytes(signature)

        place(target, version.digest, fill)

    def signature(self, version: Version) -> bytes | None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / SIGNATURE
            try:
                self._rest.download(self._artifacts(version), f"{FOLDER}/{SIGNATURE}", path, MAX_SIGNATURE_BYTES)
            except NotFound:
                return None
            return path.read_bytes()

    def put_signature(self, version: Version, data: bytes) -> None:
        self._rest.upload(self._artifacts(version), f"{FOLDER}/{SIGNATURE}", data)

    def _artifacts(self, version: Version) -> str:
        found = self._rest.get("model-versions/get-download-uri", name=version.name, version=version.number)
        return str(found["artifact_uri"])

    def _ensure_model(self, name: str) -> None:
        try:
            self._rest.post("registered-models/create", {"name": name})
        except Conflict:
            return

    def _experiment(self, name: str) -> str:
        for _ in range(2):
            try:
                found = self._rest.get("experiments/get-by-name", experiment_name=name)
                return str(found["experiment"]["experiment_id"])
            except NotFound:
                try:
                    return str(self._rest.post("experiments/create", {"name": name})["experiment_id"])
                except Conflict:
                    continue  # another process made it between the two calls
        raise Conflict(f"{name}: the MLflow experiment was deleted; restore it or delete it for good")

    def _with_digest(self, name: str, digest: str) -> Version | None:
        return next((item for item in self.versions(name) if item.digest == digest), None)

    def _first_with_digest(self, name: str, digest: str) -> Version:
        """Two processes that register one bundle at once agree on the lower number; the other version goes."""
        same = [item for item in self.versions(name) if item.digest == digest]
        for extra in same[1:]:
            try:
                self._rest.delete("model-versions/delete", {"name": name, "version": extra.number})
            except NotFound:
                continue
        return same[0]


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": str(value)} for key, value in values.items()]


def _version(item: Mapping[str, Any]) -> Version:
    tags = {tag["key"]: tag["value"] for tag in item.get("tags", ())}
    return Version(
        name=item["name"],
        number=str(item["version"]),
        digest=tags.get(DIGEST_TAG, ""),
        run_id=item.get("run_id", ""),
        tags=tags,
        created_at_us=int(item["creation_timestamp"]) * 1000,
    )


def _mlmodel_files(run_id: str, model_id: str) -> dict[str, str]:
    """What stock MLflow needs to load model.ubj from the bundle folder; JSON is YAML."""
    data = f"{FOLDER}/{MODEL_UBJ}"
    python = ".".join(str(part) for part in sys.version_info[:3])
    packages = {"xgboost": _installed("xgboost-cpu") or _installed("xgboost"), "numpy": _installed("numpy")}
    requirements = [f"{name}=={number}" for name, number in packages.items() if number]
    environment = {
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": requirements}],
        "name": "mlflow-env",
    }
    mlmodel = {
        "artifact_path": "model",
        "flavors": {
            "python_function": {
                "data": data,
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                "loader_module": "mlflow.xgboost",
                "python_version": python,
            },
            "xgboost": {
                "code": None,
                "data": data,
                "model_class": "xgboost.core.Booster",
                "model_format": "ubj",
                "xgb_version": packages["xgboost"],
            },
        },
        "model_id": model_id,
        "run_id": run_id,
    }
    environment_python = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    return {
        "MLmodel": json.dumps(mlmodel, indent=1) + "\n",
        "conda.yaml": json.dumps(environment, indent=1) + "\n",
        "python_env.yaml": json.dumps(environment_python, indent=1) + "\n",
        "requirements.txt": "\n".join(requirements) + "\n",
    }


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
