"""The demo closes the whole loop, verified step by step, and Ctrl-C leaves nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tidewheel.adapters.child_processes import belonging_to
from tidewheel.adapters.local_home import LocalHome
from tidewheel.cli.demo.story import STAGES
from waiting import until

pytestmark = pytest.mark.integration

DEMO = [sys.executable, "-m", "tidewheel", "demo", "--output", "json", "--folder"]


def home_of(folder: Path) -> LocalHome:
    return LocalHome.of(folder / "card-fraud")


@pytest.mark.timeout(900)
def test_the_loop_closes_and_each_step_is_verified(tmp_path: Path):
    folder = tmp_path / "demo"
    done = subprocess.run([*DEMO, str(folder)], capture_output=True, text=True, timeout=880, check=False)
    said = [line for line in done.stderr.splitlines() if not line.startswith('{"event"')]
    assert done.returncode == 0, "\n".join(said[-30:])
    figures = json.loads(done.stdout)
    assert [one["step"] for one in figures["verified"]] == list(STAGES)
    assert figures["requests"]["n_failed"] == 0
    assert figures["broken_feed"]["decision"]["findings"][0]["reason"] == "DataUnhealthy"
    assert figures["retrain"]["gain"] > 0
    assert figures["rollback"]["reply"]["model_version"] == figures["first_version"]["version"]
    assert Path(figures["look_at"]["report"]).read_text(encoding="utf-8").lstrip().startswith("<")
    assert belonging_to(home_of(folder).root) == []


@pytest.mark.timeout(300)
def test_ctrl_c_leaves_no_process_and_a_second_run_starts_anew(tmp_path: Path):
    folder = tmp_path / "demo"
    for _ in range(2):
        demo = subprocess.Popen([*DEMO, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: len(belonging_to(home_of(folder).root)) >= 4, limit_s=90)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=60) == 130
        assert belonging_to(home_of(folder).root) == []


def test_a_folder_that_is_not_a_demos_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("ten years of work")
    done = subprocess.run([*DEMO, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "is not empty and no earlier demo's" in " ".join(done.stderr.split())
    assert (tmp_path / "thesis.tex").is_file()
