"""Which project files there are for schedules, and what one says."""

from __future__ import annotations

from pathlib import Path

from tidewheel.errors import NotFound, Problem, SpecError
from tidewheel.spec.load import PROJECT_FILE, load_project_file
from tidewheel.spec.project import ModelProject


def project_files(folder: Path) -> dict[str, Path]:
    """By name, in order: the ``*.yaml`` of a folder, or the one project.yaml of a project's folder."""
    if (folder / PROJECT_FILE).is_file():
        return {Path(PROJECT_FILE).stem: folder / PROJECT_FILE}
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def project_file(folder: Path, name: str) -> Path:
    """Raises NotFound, which happens between a project's removal and the next look at the folder."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise NotFound(f"{path}: no such file; was the project removed?")
    return path


def read_project(path: Path) -> ModelProject:
    """Raises SpecError with file and line; also where NAME.yaml holds another project, as ids come from names."""
    project = load_project_file(path)
    if path.name != PROJECT_FILE and path.stem != project.name:
        line = next((i for i, text in enumerate(path.read_text().splitlines(), 1) if text.startswith("name:")), 0)
        raise SpecError(
            [Problem(str(path), line, f"name: must be that of the file, {path.stem!r} (got {project.name!r})")]
        )
    return project
