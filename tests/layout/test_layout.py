"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import platform
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "platform" / "tidewheel"
MODULES = sorted(PACKAGE.rglob("*.py"))


def dotted_names(path: Path) -> set[str]:
    """Every dotted name that a module uses, such as ``time.time`` or ``os.environ``."""
    return {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}


def under(path: Path, *folders: str) -> bool:
    return path.relative_to(PACKAGE).parts[0] in folders


def test_the_source_root_never_shadows_the_standard_library():
    assert not (PACKAGE.parent / "__init__.py").exists()
    assert hasattr(platform, "python_version")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_keeps_the_rules(path: Path):
    names = dotted_names(path)
    tree = ast.parse(path.read_text())
    if path.name != "clock.py":
        clocks = {"datetime.now", "datetime.utcnow", "time.time", "time.time_ns", "datetime.datetime.now"} & names
        assert not clocks, f"only clock.py reads the wall clock, not {clocks}"
    if not under(path, "apps", "cli", "pipelines", "adapters"):
        assert not {"os.environ", "os.getenv"} & names, "settings arrive as arguments"
    if not under(path, "cli"):
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "print"]
        assert not calls, "only commands print"
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in (node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")])
    }
    assert not imported & {"pickle", "cloudpickle", "dill", "joblib", "shelve"}, "models and messages are data"
    assert ast.get_docstring(tree) or path.read_text() == "", "a module says what it holds"


def test_modules_are_small_enough_to_read():
    lengths = {path: len(path.read_text().splitlines()) for path in MODULES}
    assert {str(path): n for path, n in lengths.items() if n > 330} == {}


def test_module_names_say_what_they_hold():
    vague = {"utils", "helpers", "manager", "common", "base", "misc"}
    assert [path for path in MODULES if path.stem in vague] == []


def test_nothing_committed_names_a_package_index_or_a_path_of_one_machine(repository: Path):
    for lock in (repository / "locks").glob("*.txt"):
        text = lock.read_text()
        assert not re.search(r"https?://|--index-url|--find-links|^-f ", text, re.MULTILINE), lock
        assert "--hash=sha256:" in text
