"""The server's side of the process that parses models: starts it, asks it, ends it when it is silent.

XGBoost and every first look at a file of a model are over there. Used from one thread at a time per lock; asking
blocks, so it is done from background threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewheel.errors import InputError, Unavailable
from tidewheel.findings import REASONS, Finding

MODULE = "tidewheel.apps.model_parser"
START_S = 60.0  # importing XGBoost takes 1.5 s on an idle machine
_KEPT = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "TMPDIR", "TIDEWHEEL_HOME")  # no secrets
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Limits:
    """Of one child. ``memory_bytes`` is address space beyond what the libraries have mapped."""

    deadline_s: float = 20.0
    cpu_s: int = 15
    memory_bytes: int = 1 << 30
    margin_s: float = 5.0  # beyond the deadline, until the process itself counts as silent


class ParseChild:
    """``start`` it early: the first question waits for it otherwise. Of ``environment`` it gets what is no secret."""

    def __init__(self, environment: Mapping[str, str], limits: Limits | None = None) -> None:
        self._environment = {name: environment[name] for name in _KEPT if name in environment} | _ONE_THREAD
        self._limits = limits or Limits()
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = self._stopped = False
        self._lock = threading.Lock()
        self._unread = b""

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process unless it runs; does not wait for it."""
        with self._lock, contextlib.suppress(OSError, EOFError):
            self._start()

    def stop(self) -> None:
        """End the process, under a question too; questions after it are refused."""
        self._stopped = True
        if (process := self._process) is not None:
            process.kill()
        with self._lock:
            self._end()

    def check(self, folder: Path, digest: str) -> Finding | None:
        """Why a bundle must not be loaded; None where a child parsed it and both models say the same."""
        answer = self._ask("check", folder, digest)
        return None if answer.get("ok") is True else _finding(answer)

    def explain(self, folder: Path, digest: str, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Float32 [n, k] -> float64 [n, k + 1]: what each feature adds to the log odds, the bias last.

        Raises InputError for rows that the model does not take, Unavailable where the child did not answer.
        """
        rows = [[None if np.isnan(value) else float(value) for value in row] for row in x]
        answer = self._ask("explain", folder, digest, rows=rows)
        added = np.array(answer.get("contributions", ()), dtype=np.float64)
        if answer.get("ok") is True and added.shape == (len(x), x.shape[1] + 1):
            return added
        finding = _finding(answer)
        raise (Unavailable if finding.reason == "LoadFailed" else InputError)(finding.message)

    def _ask(self, job: str, folder: Path, digest: str, **more: Any) -> dict[str, Any]:
        limits = self._limits
        body = {"job": job, "folder": str(folder), "digest": digest, **vars(limits), **more}
        line = json.dumps(body).encode() + b"\n"
        with self._lock:
            for _ in range(2):  # a process that was killed while idle is started again, once
                try:
                    process = self._start()
                    if not self._ready:
                        self._ready = "ready" in json.loads(self._line(process, START_S))
                    assert process.stdin is not None
                    process.stdin.write(line)
                    process.stdin.flush()
                    answer: dict[str, Any] = json.loads(self._line(process, limits.deadline_s + limits.margin_s))
                    return answer
                except TimeoutError:
                    self._end()
                    break
                except (OSError, EOFError, ValueError):
                    self._end()
        return {"reason": "LoadFailed", "message": "the process that parses models does not answer"}

    def _start(self) -> subprocess.Popen[bytes]:
        if self._stopped:
            raise EOFError
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._environment,
            )
        return self._process

    def _line(self, process: subprocess.Popen[bytes], timeout_s: float) -> bytes:
        """The next line of its stdout. Raises TimeoutError, and EOFError where it ended."""
        assert process.stdout is not None
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        while b"\n" not in self._unread:
            if not poll.poll(timeout_s * 1000):
                raise TimeoutError
            piece = os.read(process.stdout.fileno(), 1 << 20)
            if not piece:
                raise EOFError
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _end(self) -> None:
        process, self._process, self._ready, self._unread = self._process, None, False, b""
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()


def _finding(answer: dict[str, Any]) -> Finding:
    reason, message = str(answer.get("reason")), str(answer.get("message"))
    return Finding(reason if reason in REASONS else "LoadFailed", message[:1000], "critical")
