"""The tutorials' commands work, in the order in which they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration


def commands_of(page: Path) -> str:
    """All ``sh`` blocks of a page as one script."""
    return "\n".join(re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["first-model"])
def test_the_commands_of_a_tutorial_work(repository: Path, tmp_path: Path, name: str):
    script = commands_of(repository / "docs" / "tutorials" / f"{name}.md")
    assert script.count("\n") > 10
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    clean_up = 'trap "cd $PWD/card-fraud && tidewheel down" EXIT\n'
    done = subprocess.run(
        ["bash", "-e", "-c", clean_up + script],
        cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=540, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
