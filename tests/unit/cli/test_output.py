"""A program reads one JSON object from stdout and progress from stderr; NaN never reaches it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tidewheel.cli.output import Output, table, to_json


@dataclass(frozen=True)
class Point:
    x: float
    where: Path


def test_values_become_plain_json():
    value = {"a": np.float64("nan"), "b": np.int64(3), "c": (Point(1.5, Path("x")),), "d": float("inf"), 5: True}
    assert to_json(value) == {"a": None, "b": 3, "c": [{"x": 1.5, "where": "x"}], "d": None, "5": True}


def test_json_output_is_one_object_on_stdout_and_events_on_stderr(capsys):
    output = Output(as_json=True)
    with output.progress("reading", total=3) as step:
        step.advance(1)
        step.advance(2, note="done")
    output.note("for people only")
    output.result({"n": 3}, lambda console: console.print("never"))
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"n": 3}
    events = [json.loads(line) for line in printed.err.splitlines()]
    assert events[-1] == {"event": "progress", "step": "reading", "done": 3, "total": 3, "note": "done"}


def test_text_output_renders_and_keeps_brackets_of_user_data(capsys):
    output = Output(as_json=False)
    output.result({}, lambda console: console.print(table("t", ("a",), [("[red]x[/]",)])))
    assert "[red]x[/]" in capsys.readouterr().out
