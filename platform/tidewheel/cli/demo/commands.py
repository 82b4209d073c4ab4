"""Run tidewheel's own commands as a person would and read what they print; the demo's only way to do anything."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidewheel.errors import TidewheelError

COMMAND_TIMEOUT_S = 600


class StepFailed(TidewheelError):
    """A command of the demo failed, or did not do what the story says; the demo ends and names it."""


@dataclass
class Commands:
    """Runs commands for one project folder; ``follow`` is told of each progress event while they run."""

    project: Path
    follow: Callable[[dict[str, Any]], None]
    n_run: int = 0

    def tidewheel(self, name: str, *arguments: str, project: bool = True) -> dict[str, Any]:
        """``tidewheel NAME PROJECT ARGUMENTS --output json``: the JSON object it printed."""
        line = [sys.executable, "-m", "tidewheel", name, *([str(self.project)] if project else []), *arguments]
        text = self._run([*line, "--output", "json"], f"tidewheel {name}")
        try:
            body = json.loads(text)
        except ValueError as error:
            raise StepFailed(f"tidewheel {name}: printed no JSON object") from error
        if not isinstance(body, dict):
            raise StepFailed(f"tidewheel {name}: printed no JSON object")
        return body

    def python(self, script: Path, *arguments: str) -> str:
        """``python SCRIPT ARGUMENTS``: what it printed."""
        return self._run([sys.executable, str(script), *arguments], script.name)

    def _run(self, line: Sequence[str], what: str) -> str:
        self.n_run += 1
        # A session of its own: Ctrl-C reaches the demo alone, which then ends its child in order.
        child = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        errors: list[str] = []
        reader = threading.Thread(target=self._read_errors, args=(child, errors), daemon=True)
        reader.start()
        try:
            assert child.stdout is not None
            output = child.stdout.read()
            code = child.wait(timeout=COMMAND_TIMEOUT_S)
        except BaseException:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
            raise
        reader.join(timeout=5)
        if code != 0:
            said = "\n".join(errors[-12:]).strip() or output.strip()[-2000:] or "it said nothing"
            raise StepFailed(f"{what}: exit code {code}: {said}")
        return output

    def _read_errors(self, child: subprocess.Popen[str], errors: list[str]) -> None:
        assert child.stderr is not None
        for line in child.stderr:
            try:
                event = json.loads(line)
            except ValueError:
                errors.append(line.rstrip("\n"))
                continue
            if isinstance(event, dict) and "event" in event:
                self.follow(event)
            else:
                errors.append(line.rstrip("\n"))
