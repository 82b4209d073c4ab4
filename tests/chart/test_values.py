"""Every value of the chart does something: another value is another render."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from chart.test_chart import CHART, template

FREE = ("labels", "annotations", "env", "nodeSelector", "namespaceLabels", "prometheusNamespaceLabels")
# Some values count only with others: all switches on, and every store the team's own.
EVERYTHING = ("-f", str(Path(__file__).parent / "everything.yaml"))
OUTSIDE = (*EVERYTHING, "-f", str(CHART / "values-production.yaml"), "-f", str(Path(__file__).parent / "outside.yaml"))
DIGEST = "sha256:" + "f" * 64


def values() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load((CHART / "values.yaml").read_text())
    return loaded


def leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All but kserve.check, which changes no render but whether there is one."""
    if path == ("kserve", "check"):
        return
    if (isinstance(node, dict) and path[-1:] and path[-1] not in FREE) or not path:
        for name, one in node.items():
            yield from leaves(one, (*path, name))
    else:
        yield path, node


def another(path: tuple[str, ...], value: Any) -> Any:
    name = path[-1]
    if name in FREE:
        return {"changed": "changed"}
    if name == "tolerations":
        return [{"key": "changed"}]
    if isinstance(value, int):
        return value + 7
    if isinstance(value, list):
        return [*value, 1234] if value and isinstance(value[0], int) else ["192.0.2.9/32"]
    by_name = {"cpu": "77m", "memory": "777Mi", "storage": "77Gi", "pullPolicy": "Never"}
    if path[-2:-1] == ("digests",):
        return DIGEST
    return by_name.get(name, f"https://changed.example.com/{name}" if "Ur" in name else "changed")


@cache
def render(arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    return template(*arguments)


@pytest.mark.parametrize(("path", "value"), [pytest.param(*leaf, id=".".join(leaf[0])) for leaf in leaves(values())])
def test_a_value_changes_the_render(path: tuple[str, ...], value: Any, tmp_path: Path) -> None:
    # Of a switch both are tried: it may be as the context has it.
    for number, other in enumerate((True, False) if isinstance(value, bool) else (another(path, value),)):
        given: Any = other
        for name in reversed(path):
            given = {name: given}
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(given))
        if any(_differs(context, file) for context in (EVERYTHING, OUTSIDE)):
            return
    pytest.fail("no template uses it")


def _differs(context: tuple[str, ...], file: Path) -> bool:
    changed, before = template(*context, "-f", str(file)), render(context)
    assert before.returncode == 0, before.stderr
    return changed.returncode == 0 and changed.stdout != before.stdout
