"""project.yaml -> ModelProject, or every mistake in it at once with file and line.

Called by every command and process that starts from a project folder or a bundle. It reads one file and
runs no code of the project.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from tidewheel.errors import NotFound, Problem, SpecError
from tidewheel.spec.project import ModelProject, cross_problems

PROJECT_FILE = "project.yaml"
MAX_SPEC_BYTES = 1_000_000

_MESSAGES = {
    "missing": "required field is missing",
    "extra_forbidden": "unknown field",
}


def load_project(folder: Path) -> ModelProject:
    """Read ``folder/project.yaml``.

    Raises NotFound where there is no such file, SpecError with every problem where it is wrong.
    """
    path = folder / PROJECT_FILE
    if not path.is_file():
        raise NotFound(f"{path}: no such file; run 'tidewheel new NAME' to start a project")
    return load_project_file(path)


def load_project_file(path: Path) -> ModelProject:
    """Read a file of any name, as schedulers are given them. Raises SpecError, OSError."""
    if path.stat().st_size > MAX_SPEC_BYTES:
        raise SpecError([Problem(str(path), 0, f"the file is over {MAX_SPEC_BYTES} bytes")])
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SpecError([Problem(str(path), 0, f"not UTF-8 text (byte {error.start})")]) from error
    return parse_project(text, str(path))


def project_tree(folder: Path) -> dict[str, Any]:
    """What a valid ``project.yaml`` says, as plain values under the names people write. Raises as ``load_project``."""
    load_project(folder)
    return dict(_plain(_parse_yaml((folder / PROJECT_FILE).read_text(encoding="utf-8"), PROJECT_FILE)))


def parse_project(text: str, file: str) -> ModelProject:
    """Parse the text of a project file; ``file`` is only used in messages. Raises SpecError."""
    return _sound_project(text) or _project_or_problems(text, file)


def _sound_project(text: str) -> ModelProject | None:
    """The project where nothing is wrong with it, without positions: quick where ruamel.yaml.clib is installed."""
    try:
        project = ModelProject.model_validate(YAML(typ="safe").load(text))
    except (YAMLError, ValueError):  # pydantic's error is a ValueError
        return None
    return project if not any(cross_problems(project)) else None


def _project_or_problems(text: str, file: str) -> ModelProject:
    tree = _parse_yaml(text, file)
    plain = _plain(tree)
    try:
        project = ModelProject.model_validate(plain)
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems = [_problem(tree, file, detail) for detail in details]
        sound = _sound_part(plain, {str(detail["loc"][0]) for detail in details if detail["loc"]})
        raise SpecError([*problems, *(_cross_problems(tree, file, sound) if sound else [])]) from error
    if problems := _cross_problems(tree, file, project):
        raise SpecError(problems)
    return project


def _cross_problems(tree: CommentedMap, file: str, project: ModelProject) -> list[Problem]:
    return [
        Problem(file, _line(tree, path), f"{_dotted(path)}: {message}") for path, message in cross_problems(project)
    ]


def _sound_part(plain: dict[str, Any], faulty: set[str]) -> ModelProject | None:
    """The project with neutral values for its faulty sections, so that mistakes between the others show as well.

    None where a section that the others refer to is faulty: what refers to it may be right.
    """
    if faulty & {"entities", "sources", "request", "label"}:
        return None
    neutral = {"name": "x", "owner": "x", "training": {"window": "1d"}, "serving": {"decision": {"any": 0.0}}}
    return ModelProject.model_validate({**neutral, **{k: v for k, v in plain.items() if k not in faulty}})


def _parse_yaml(text: str, file: str) -> CommentedMap:
    yaml = YAML(typ="rt", pure=True)
    try:
        tree = yaml.load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        what = (error.problem or "cannot be parsed").split("\n")[0]
        raise SpecError([Problem(file, line, f"not valid YAML: {what}")]) from error
    except (YAMLError, ValueError) as error:
        raise SpecError([Problem(file, 0, f"not valid YAML: {str(error).splitlines()[0]}")]) from error
    if not isinstance(tree, CommentedMap):
        raise SpecError([Problem(file, 1, "must be a mapping of fields to values, starting with 'name: ...'")])
    return tree


def _plain(node: Any) -> Any:
    """Round-trip nodes to plain Python values, so that messages show what was written."""
    if isinstance(node, CommentedMap):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        return [_plain(value) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _problem(tree: CommentedMap, file: str, detail: Any) -> Problem:
    path = tuple(part for part in detail["loc"] if part != "[key]")
    message = _MESSAGES.get(detail["type"], "")
    if not message:
        text = str(detail["msg"]).removeprefix("Value error, ")
        message = text[:1].lower() + text[1:]
    got = detail.get("input")
    if detail["type"] != "missing" and not isinstance(got, dict | list) and "(got " not in message:
        message += f" (got {got!r})"
    if detail["type"] == "extra_forbidden" and (allowed := _fields_of(path[:-1])):
        message += f"; allowed are {', '.join(allowed)}"
    return Problem(file, _line(tree, path), f"{_dotted(path)}: {message}" if path else message)


def _fields_of(path: tuple[str | int, ...]) -> list[str]:
    """Fields of the section at ``path``, by the names people write; empty where it has none of its own."""
    schema = ModelProject.model_json_schema()
    definitions = schema["$defs"]

    def resolved(node: dict[str, Any]) -> dict[str, Any]:
        for one in (node, *node.get("anyOf", ()), *node.get("allOf", ())):
            if "$ref" in one:
                found: dict[str, Any] = definitions[one["$ref"].rsplit("/", 1)[-1]]
                return found
        return node

    node = schema
    for part in path:
        by_name = [*node.get("patternProperties", {}).values(), node.get("additionalProperties"), node.get("items")]
        below = (node.get("properties", {}).get(part), *by_name)
        node = resolved(next((one for one in below if isinstance(one, dict)), {}))
    return list(node.get("properties", ()))


def _dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(str(part) for part in path)


def _line(tree: Any, path: tuple[str | int, ...]) -> int:
    """Line of the deepest part of ``path`` that the file holds; a missing field gets its parent's line."""
    line, node = 1, tree
    for part in path:
        try:
            if isinstance(node, CommentedMap) and part in node:
                line = node.lc.key(part)[0] + 1
            elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
                line = node.lc.item(part)[0] + 1
            else:
                break
            node = node[part]
        except (KeyError, AttributeError, TypeError):
            break
    return line
