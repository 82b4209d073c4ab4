"""Exit codes say whose fault it is, and no traceback reaches the terminal."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tidewheel.cli import main as cli_main
from tidewheel.errors import InputError


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tidewheel", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli_main.main()
    return int(ended.value.code or 0)


def command_that(raises: BaseException) -> click.Command:
    def callback() -> None:
        raise raises

    return click.Command("status", callback=callback)


@pytest.mark.parametrize(
    ("raises", "code", "says"),
    [
        pytest.param(InputError("rows.parquet: no rows"), 1, "error: rows.parquet: no rows", id="yours"),
        pytest.param(
            FileNotFoundError(2, "No such file or directory", "x.parquet"), 1, "x.parquet: no such", id="world"
        ),
        pytest.param(
            OSError(28, "No space left on device", "/Lake/part"),
            1,
            "/Lake/part: no space left on device; make room and run the command again",
            id="disk full",
        ),
        pytest.param(
            OSError(28, "No space left on device", "/from", None, "/to"),
            1,
            "/to: no space left",
            id="disk of a copy full",
        ),
        pytest.param(
            shutil.Error([("/A/from", "/B/to", "[Errno 28] No space left on device"), ("/A/x", "/B/y", "...")]),
            1,
            "/B/to: cannot be copied from /A/from",
            id="a tree that cannot be copied",
        ),
        pytest.param(KeyboardInterrupt(), 130, "interrupted", id="Ctrl-C"),
        pytest.param(
            ZeroDivisionError("division by zero"), 3, "a fault of tidewheel itself: ZeroDivisionError", id="ours"
        ),
    ],
)
def test_an_error_ends_with(monkeypatch, capsys, raises, code, says):
    monkeypatch.setattr(cli_main.cli, "get_command", lambda ctx, name: command_that(raises))
    assert run(monkeypatch, "status") == code
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said


def test_our_own_fault_names_a_log_with_the_traceback(monkeypatch, capsys):
    monkeypatch.setattr(cli_main.cli, "get_command", lambda ctx, name: command_that(ZeroDivisionError("oops")))
    run(monkeypatch, "status")
    said = re.sub(r"\s+", "", capsys.readouterr().err)
    log = Path(said.split("detailsarein")[1])
    assert "ZeroDivisionError: oops" in log.read_text()
    log.unlink()


def test_a_wrong_option_is_a_usage_error_that_names_the_help(monkeypatch, capsys):
    assert run(monkeypatch, "validate", "--nope") == 2
    assert "No such option" in (said := capsys.readouterr().err)
    assert "see 'tidewheel validate --help'" in said


def test_validate_prints_one_json_object_with_every_problem(tmp_path: Path):
    (tmp_path / "project.yaml").write_text("name: X\nowner: me\n")
    (tmp_path / "features.py").write_text("")
    line = [sys.executable, "-m", "tidewheel", "validate", str(tmp_path), "--output", "json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    problems = json.loads(done.stdout)["problems"]
    assert {problem["line"] for problem in problems} == {1}
    assert any("name: string should match" in problem["message"] for problem in problems)


def test_help_is_fast_because_commands_load_when_asked_for():
    code = "import sys, tidewheel.cli.main; print(sorted({'numpy', 'pyarrow', 'mlflow', 'xgboost'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
