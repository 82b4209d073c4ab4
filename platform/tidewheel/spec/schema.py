"""ModelProject -> JSON Schema for editors, committed as docs/reference/project.schema.json."""

from __future__ import annotations

import json
from typing import Any

from tidewheel.spec.project import ModelProject

SCHEMA_ID = "https://tidewheel.dev/schemas/project.schema.json"


def project_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``project.yaml``."""
    body = ModelProject.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **body}


def project_schema_text() -> str:
    """The schema as committed: sorted keys, two spaces, a final newline."""
    return json.dumps(project_schema(), indent=2, sort_keys=True) + "\n"
