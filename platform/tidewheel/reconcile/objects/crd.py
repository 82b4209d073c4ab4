"""The CustomResourceDefinition of ModelProject, made from the spec: what `tidewheel validate` refuses, the API server
refuses as well, across fields too (by CEL). It knows no time zones; the controller, which reads the code, does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidewheel.reconcile.objects.settings import GROUP, KIND, PLURAL, VERSION
from tidewheel.spec.project import ModelProject

Schema = dict[str, Any]

# Bounds that CEL needs to know what a rule can cost.
_MAX_TEXT, _MAX_ITEMS = 500, 32
_MAX_KEYS = {"entities": 16, "sources": 32, "columns": 256, "decision": 16, "params": 64}
_IDENTIFIER_KEYS = ("entities", "sources", "columns")
_KEPT = ("type", "enum", "pattern", "minimum", "maximum", "minLength", "minItems", "minProperties", "description")

_NOT_TO_SET = "['objective', 'num_class', 'booster', 'nthread', 'verbosity', 'missing']"
_RULES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "Replicas": (("self.max >= self.min", "max must be at least min"),),
    "Persists": (("self.of >= self.runs", "of must be at least runs"),),
    "RolloutStep": (("has(self.shadow) != has(self.canary)", "must be exactly one of shadow or canary"),),
    "Source": (
        ("!self.path.startsWith('/') && !self.path.split('/').exists(p, p == '..')",
         "path must be a relative path without '..'"),
        ("!has(self.key) || has(self.topic)", "key is about the messages of a topic; a table has none"),
        ("self.columns.all(c, c != self.event_time && (!has(self.event_id) || c != self.event_id))",
         "columns name what is not the event time or the event id already"),
    ),
    "Serving": (
        ("self.decision.exists(d, self.decision[d] == 0.0)",
         "one decision must start at 0.0, else low scores have none"),
        ("self.decision.all(a, self.decision.all(b, a == b || self.decision[a] != self.decision[b]))",
         "two decisions start at the same score"),
        ("!has(self.fallback) || self.fallback.decision in self.decision", "fallback.decision must be a decision"),
    ),
    "Training": (
        (f"!has(self.params) || !self.params.exists(p, p in {_NOT_TO_SET})",
         "params must not set what the platform does, nor missing"),
    ),
    "ModelProject": (
        ("self.entities.all(e, self.entities.all(f, e == f || self.entities[e].key != self.entities[f].key))",
         "two entities share a key"),
        ("self.request in self.sources", "request must name a source"),
        ("!(self.request in self.sources) || has(self.sources[self.request].event_id)",
         "the request's source needs an event_id"),
        ("!(self.request in self.sources) || has(self.sources[self.request].topic)",
         "the request's source needs a topic: it is a stream of events"),
        ("self.label.source in self.sources", "label.source must name a source"),
        ("!(self.label.source in self.sources) || (self.label.column in self.sources[self.label.source].columns && "
         "self.sources[self.label.source].columns[self.label.column] in ['bool', 'int32', 'int64'])",
         "label.column must be a bool, int32 or int64 column of the label's source"),
        ("!(self.label.source in self.sources) || has(self.sources[self.label.source].event_id)",
         "the label's source needs an event_id to join labels by"),
        ("self.sources.all(s, !has(self.sources[s].key) || self.sources[s].key in self.entities)",
         "a source's key must name an entity"),
        ("self.sources.all(s, self.entities.all(e, !(self.entities[e].key in self.sources[s].columns)))",
         "columns name what is not a key already"),
        ("!has(self.rollout) || self.rollout.unit in self.entities", "rollout.unit must name an entity"),
        ("!has(self.training.exclude_known_positives) || self.training.exclude_known_positives in self.entities",
         "training.exclude_known_positives must name an entity"),
        ("!(self.request in self.sources) || !has(self.training.gate) || !has(self.training.gate.slices) || "
         "self.training.gate.slices.all(c, c in self.sources[self.request].columns)",
         "training.gate.slices must be columns of the request's source"),
        ("!(self.request in self.sources) || !has(self.monitoring) || !has(self.monitoring.performance) || "
         "!has(self.monitoring.performance.slices) || "
         "self.monitoring.performance.slices.all(c, c in self.sources[self.request].columns)",
         "monitoring.performance.slices must be columns of the request's source"),
    ),
}  # fmt: skip

_COLUMNS = (
    ("Version", ".status.version"), ("Traffic", ".status.traffic"), ("Stage", ".status.stage"),
    ("Ready", ".status.ready"), ("Finding", ".status.finding"),
)  # fmt: skip
_STATUS_TEXTS = ("code", "version", "previous", "traffic", "stage", "ready", "waiting", "finding", "message", "url")


def custom_resource_definition() -> dict[str, Any]:
    """The whole object, ready to apply."""
    columns = [{"name": name, "type": "string", "jsonPath": path} for name, path in _COLUMNS]
    columns.append({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"})
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"kind": KIND, "listKind": f"{KIND}List", "plural": PLURAL, "singular": KIND.lower(),
                      "shortNames": ["mp"], "categories": ["tidewheel"]},
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": _whole()},
                }
            ],
        },
    }  # fmt: skip


def _whole() -> Schema:
    made = ModelProject.model_json_schema(by_alias=True, mode="validation")
    spec = _structural(made, made["$defs"], "ModelProject")
    spec["properties"]["code"] = {
        "type": "object",
        "description": "The signed code of the project in the object store.",
        "properties": {"digest": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
        "required": ["digest"],
    }
    spec["required"] = [*spec["required"], "code"]
    condition = {name: {"type": "string"} for name in ("type", "status", "reason", "message")}
    condition |= {"lastTransitionTime": {"type": "string", "format": "date-time"},
                  "observedGeneration": {"type": "integer", "format": "int64"}}  # fmt: skip
    status: Schema = {name: {"type": "string"} for name in _STATUS_TEXTS}
    status |= {
        "observedGeneration": {"type": "integer", "format": "int64"},
        "generation": {"type": "integer", "format": "int64", "description": "Of the deployment, in the journal."},
        "conditions": {
            "type": "array",
            "items": {"type": "object", "properties": condition, "required": ["type", "status"]},
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    }
    return {
        "type": "object",
        "description": "One model: its data, how it is trained, served, rolled out, watched and retrained.",
        "properties": {"spec": spec, "status": {"type": "object", "properties": status}},
        "required": ["spec"],
        "x-kubernetes-validations": [
            {"rule": "self.metadata.name == self.spec.name", "message": "metadata.name must be spec.name"}
        ],
    }


def _structural(node: Schema, types: Mapping[str, Schema], name: str, field: str = "") -> Schema:
    """JSON Schema as pydantic writes it to what a CRD allows; ``name`` is that of the type, where it has one."""
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[-1]
        described = {"description": node["description"]} if "description" in node else {}
        return _structural(types[name], types, name, field) | described
    if "anyOf" in node:
        variants = [one for one in node["anyOf"] if one.get("type") != "null"]
        if len(variants) > 1:
            return {"type": "string", "maxLength": _MAX_TEXT}  # values of several types are written as text
        described = {"description": node["description"]} if "description" in node else {}
        return _structural(variants[0], types, name, field) | described
    made: Schema = {key: node[key] for key in _KEPT if key in node}
    if "const" in node:
        made["enum"] = [node["const"]]
    for bound in ("Minimum", "Maximum"):
        if f"exclusive{bound}" in node:
            made[bound.lower()], made[f"exclusive{bound}"] = node[f"exclusive{bound}"], True
    match node.get("type"):
        case "object":
            _object(made, node, types, name, field)
        case "array":
            made["items"] = _structural(node["items"], types, "")
            made["maxItems"] = _MAX_ITEMS
        case "string" if "enum" not in made:
            made.setdefault("maxLength", _MAX_TEXT)
        case "integer":
            made["format"] = "int64"
    return made


def _object(made: Schema, node: Schema, types: Mapping[str, Schema], name: str, field: str) -> None:
    values = next(iter(node.get("patternProperties", {}).values()), node.get("additionalProperties"))
    if isinstance(values, dict):
        made["additionalProperties"] = _structural(values, types, "")
        made["maxProperties"] = _MAX_KEYS[field]
        if field in _IDENTIFIER_KEYS:
            made["x-kubernetes-validations"] = [
                {"rule": "self.all(k, k.matches('^[A-Za-z_][A-Za-z0-9_]{0,62}$'))",
                 "message": "names are letters, digits and _, and begin with no digit"}
            ]  # fmt: skip
        return
    made["properties"] = {key: _defaulted(value, types, key) for key, value in node["properties"].items()}
    if "required" in node:
        made["required"] = list(node["required"])
    if name in _RULES:
        made["x-kubernetes-validations"] = [{"rule": rule, "message": message} for rule, message in _RULES[name]]


def _defaulted(value: Schema, types: Mapping[str, Schema], field: str) -> Schema:
    """Numbers that rules compare have their defaults in the object as well; the rest is the reader's to fill."""
    made = _structural(value, types, "", field)
    if field in ("min", "max", "runs", "of") and made.get("type") == "integer":
        made["default"] = value["default"]
    return made
