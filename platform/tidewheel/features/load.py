"""features.py -> FeatureSet, or every mistake in it at once with file and line.

It runs the project's own code, so callers load only from a project folder they own or a bundle they verified.
"""

from __future__ import annotations

import ast
import traceback
from pathlib import Path
from typing import Any

from tidewheel.errors import NotFound, Problem, SpecError
from tidewheel.features.declaration import FeatureSet
from tidewheel.features.dsl import BatchDeclaration, Declaration, RequestDeclaration, WindowedDeclaration, collect
from tidewheel.features.resolve import resolve
from tidewheel.spec.project import ModelProject

FEATURES_FILE = "features.py"


def load_features(folder: Path, project: ModelProject) -> FeatureSet:
    """Run ``folder/features.py`` and check what it declares against ``project``.

    Raises NotFound where there is no such file, SpecError with every problem where it is wrong.
    """
    path = folder / FEATURES_FILE
    if not path.is_file():
        raise NotFound(f"{path}: no such file; declare at least one feature in it, or run 'tidewheel new NAME'")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SpecError([Problem(str(path), 0, f"not UTF-8 text (byte {error.start})")]) from error
    return parse_features(text, str(path), project)


def parse_features(text: str, file: str, project: ModelProject) -> FeatureSet:
    """Run the text of a features file; ``file`` names it in messages. Raises SpecError."""
    try:
        tree = ast.parse(text, file)
        code = compile(text, file, "exec")
    except (SyntaxError, ValueError) as error:
        line = error.lineno or 0 if isinstance(error, SyntaxError) else 0
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        raise SpecError([Problem(file, line, f"not valid Python: {what}")]) from error
    namespace: dict[str, Any] = {"__name__": "features", "__file__": file, "__builtins__": __builtins__}
    with collect() as made:
        try:
            exec(code, namespace)
        except (Exception, SystemExit) as error:  # whatever the project's own code raises is the project's mistake
            raise SpecError([Problem(file, _line_in(file, error), _error_text(error))]) from error
    problems: list[Problem] = []
    named = _named(namespace, made, file, problems)
    # Unparsed: a comment or a blank line is not a change of the declaration, a changed constant is.
    return resolve(named, project, file, ast.unparse(tree), problems)


def _named(
    namespace: dict[str, Any], made: list[Declaration], file: str, problems: list[Problem]
) -> list[tuple[str, Declaration]]:
    """Declarations with the variables that name them, in the order they were declared."""
    kinds = (WindowedDeclaration, BatchDeclaration, RequestDeclaration)
    names: dict[int, list[str]] = {}
    for name, value in namespace.items():
        if isinstance(value, kinds):
            names.setdefault(id(value), []).append(name)
    named: list[tuple[str, Declaration]] = []
    for declaration in made:
        found = names.get(id(declaration), [])
        if len(found) == 1:
            named.append((found[0], declaration))
        elif found:
            problems.append(Problem(file, declaration.line, f"one view has several names ({', '.join(found)})"))
        else:
            problems.append(
                Problem(file, declaration.line, "this view has no name or lost it; assign it to a variable of its own")
            )
    return named


def _line_in(file: str, error: BaseException) -> int:
    """Line of the project's file that was running when ``error`` was raised."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno or 0
    lines = [frame.lineno or 0 for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else 0


def _error_text(error: BaseException) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
