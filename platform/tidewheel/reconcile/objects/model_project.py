"""The ModelProject object: the content of ``project.yaml`` as its spec, with the digest of the code under it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from tidewheel.reconcile.objects.settings import GROUP, KIND, VERSION
from tidewheel.spec.project import ModelProject


def model_project(tree: Mapping[str, Any], digest: str, namespace: str, applied_by: str) -> dict[str, Any]:
    """``tree`` is what the project file says, ``digest`` that of project.yaml and features.py together."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {
            "name": tree["name"],
            "namespace": namespace,
            "annotations": {f"{GROUP}/applied-by": applied_by},
        },
        "spec": {**_with_text_params(tree), "code": {"digest": digest}},
    }


def spec_differences(live: Mapping[str, Any], spec: ModelProject) -> list[str]:
    """Sections in which a live object's spec is not that of its code; empty where they say the same."""
    tree = {name: value for name, value in live["spec"].items() if name != "code"}
    try:
        told = ModelProject.model_validate(tree)
    except ValidationError as error:
        return [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
    return [f"{name} differs" for name in ModelProject.model_fields if _plain(told, name) != _plain(spec, name)]


def _plain(spec: ModelProject, name: str) -> Any:
    value = spec.model_dump()[name]
    return {**value, "params": _texts(value["params"])} if name == "training" else value


def _with_text_params(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A structural schema has one type per field: parameters of a trainer, which have several, are text there."""
    training = dict(tree.get("training", {}))
    if "params" in training:
        training["params"] = _texts(training["params"])
    return {**tree, "training": training} if training else dict(tree)


def _texts(params: Mapping[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in params.items()}
