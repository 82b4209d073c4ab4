"""Writes a project's definitions to a Feast registry, through Feast itself.

Run as ``python -m tidewheel.adapters.feast_registry FOLDER``: importing Feast takes seconds, so this is a process of
its own, and ``feast_folder`` starts it only where something changed. Nothing else imports Feast.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from tidewheel.adapters.feast_folder import CONFIG_FILE, DEFINITIONS_FILE, REGISTRY_FILE, WRITTEN_FILE
from tidewheel.whole_file import write_whole


def write_registry(folder: Path) -> None:
    """Bring the registry that ``folder`` names to what its definitions say; what others put there stays."""
    from feast import FeatureStore
    from feast.repo_config import load_repo_config

    wanted = json.loads((folder / DEFINITIONS_FILE).read_bytes())
    config = load_repo_config(folder, folder / CONFIG_FILE)
    registry, scratch = folder / REGISTRY_FILE, folder / f".{REGISTRY_FILE}.tmp"
    in_file = config.registry.registry_type == "file"
    if in_file:
        # Feast writes in place; servers that read at this moment must see the old file or the new one.
        if registry.exists():
            shutil.copyfile(registry, scratch)
        else:
            scratch.unlink(missing_ok=True)
        config.registry.path = str(scratch)
    _apply(FeatureStore(config=config).registry, wanted)
    if in_file:
        scratch.replace(registry)


def _apply(registry: Any, wanted: dict[str, Any]) -> None:
    """By the registry itself, not by FeatureStore.apply, which would also change tables of the online store."""
    from feast import Entity, FeatureService, FeatureView, Field, FileSource, Project, ValueType
    from feast.types import Bool, Bytes, Float64, Int64, String

    types = {"float64": Float64, "int64": Int64, "bool": Bool, "bytes": Bytes, "string": String}
    project = wanted["project"]
    told = {"owner": wanted["owner"], "tags": {"managed_by": "tidewheel"}}
    registry.apply_project(Project(name=project, description=wanted["description"], **told), commit=False)
    entities = {
        one["name"]: Entity(
            name=one["name"], join_keys=[one["name"]], value_type=ValueType[one["type"].upper()], **told
        )
        for one in wanted["entities"]
    }
    sources = {
        one["name"]: FileSource(name=one["name"], path=one["path"], timestamp_field=one["event_time"], **told)
        for one in wanted["sources"]
    }
    views = {}
    for one in wanted["views"]:
        fields = [Field(name=name, dtype=types[kind]) for name, kind in (*one["keys"], *one["features"])]
        views[one["name"]] = FeatureView(
            name=one["name"], entities=[entities[column] for column, _ in one["keys"]], schema=fields,
            source=sources[one["source"]], ttl=timedelta(seconds=one["ttl_s"]), online=True, owner=one["owner"],
            description=one["description"], tags=one["tags"],
        )  # fmt: skip
    published = {one["name"]: [name for name, kind in one["features"] if kind != "bytes"] for one in wanted["views"]}
    service = wanted["service"]
    chosen = [views[name][published[name]] for name in service["views"]]
    for source in sources.values():
        registry.apply_data_source(source, project=project, commit=False)
    for entity in entities.values():
        registry.apply_entity(entity, project=project, commit=False)
    for view in views.values():
        registry.apply_feature_view(view, project=project, commit=False)
    registry.apply_feature_service(FeatureService(name=service["name"], features=chosen, **told), project, commit=False)
    registry.commit()  # before the list, which reads the file again
    for view in registry.list_feature_views(project):
        if view.tags.get("managed_by") == "tidewheel" and view.name not in views:
            registry.delete_feature_view(view.name, project)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tidewheel.adapters.feast_registry", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--digest", required=True, help="kept beside the registry: what it was made of")
    given = parser.parse_args()
    try:
        with (given.folder / ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one after the other; the last one has the newest definitions
            write_registry(given.folder)
            write_whole(given.folder / WRITTEN_FILE, given.digest.encode())
    except Exception as error:  # the parent tells it in one line
        sys.stderr.write(f"{type(error).__name__}: {' '.join(str(error).split())}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
