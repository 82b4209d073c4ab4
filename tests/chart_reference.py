"""Generated files of the charts: the CRD, the schema of the values, and the page about them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tidewheel.reconcile.objects.crd import custom_resource_definition

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "tidewheel"
CRD = ROOT / "charts" / "tidewheel-crds" / "templates" / "modelproject.yaml"
PAGE = ROOT / "docs" / "reference" / "chart-values.md"
SCHEMA = CHART / "values.schema.json"

# Values whose content is Kubernetes' own.
_RESOURCES = {
    "type": "object",
    "additionalProperties": False,
    "required": ["requests", "limits"],
    "properties": {
        part: {
            "type": "object",
            "additionalProperties": False,
            "required": ["cpu", "memory"],
            "properties": {
                "cpu": {"type": ["string", "integer"], "pattern": "^([0-9]+m|[0-9]+(\\.[0-9]+)?)$"},
                "memory": {"type": "string", "pattern": "^[0-9]+(Ki|Mi|Gi)$"},
            },
        }
        for part in ("requests", "limits")
    },
}
_FREE = ("labels", "env", "annotations", "nodeSelector", "namespaceLabels", "prometheusNamespaceLabels")  # text to text
_TOLERATION = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "key": {"type": "string"},
        "operator": {"enum": ["Exists", "Equal"]},
        "value": {"type": "string"},
        "effect": {"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
        "tolerationSeconds": {"type": "integer"},
    },
}
_DIGEST = {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}
_ENUMS = {"pullPolicy": ["Always", "IfNotPresent", "Never"]}
_MINIMA = {"replicas": 1, "parallelism": 1, "refreshSeconds": 5, "port": 1}


def crd_text() -> str:
    out = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 120
    yaml.dump(custom_resource_definition(), out)
    return "# Generated from the spec by `make generate`.\n" + out.getvalue()


def values_schema_text() -> str:
    values = YAML(typ="safe").load((CHART / "values.yaml").read_text())
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "tidewheel", **_of(values, "")}
    schema["properties"]["global"] = {"type": "object"}  # Helm's own
    return json.dumps(schema, indent=1) + "\n"


def _of(value: Any, name: str) -> dict[str, Any]:
    if name == "resources":
        return _RESOURCES
    if name in _FREE:
        return {"type": "object", "additionalProperties": {"type": "string"}}
    if name == "digests":
        properties = dict.fromkeys(value, _DIGEST)
        return {"type": "object", "additionalProperties": False, "properties": properties}
    if isinstance(value, dict):
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {key: _of(one, key) for key, one in value.items()},
        }
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer", "minimum": _MINIMA.get(name, 0)}
    if isinstance(value, list):
        if name == "tolerations":
            return {"type": "array", "items": _TOLERATION}
        kind = "integer" if value and isinstance(value[0], int) else "string"
        return {"type": "array", "items": {"type": kind}}
    return {"enum": _ENUMS[name]} if name in _ENUMS else {"type": "string"}


def values_page_text() -> str:
    """Every value with its default and the line that describes it, from the comments of values.yaml."""
    rows, path, told = [], [], ""
    values = YAML(typ="safe").load((CHART / "values.yaml").read_text())
    for line in (CHART / "values.yaml").read_text().splitlines():
        text = line.strip()
        if text.startswith("# -- "):
            told = text.removeprefix("# -- ")
            continue
        if not text or text.startswith("#") or ":" not in text:
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        path = [*path[:depth], text.partition(":")[0]]
        value: Any = values
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        if told:
            rows.append(f"| `{'.'.join(path)}` | `{json.dumps(value)}` | {told} |")
            told = ""
    head = (
        "# Values of the chart\n\nMade from the comments of "
        "[values.yaml](../../charts/tidewheel/values.yaml) by `make generate`; the chart refuses a value that is not "
        "here. How to install: [install](../how-to/install.md).\n\n| value | default | what it is |\n|---|---|---|"
    )
    return "\n".join([head, *rows, ""])


def write_chart_files() -> None:
    CRD.write_text(crd_text(), encoding="utf-8")
    SCHEMA.write_text(values_schema_text(), encoding="utf-8")
    PAGE.write_text(values_page_text(), encoding="utf-8")
