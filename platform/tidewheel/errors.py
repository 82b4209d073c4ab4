"""Every error tidewheel raises on purpose; the CLI maps them to exit codes, HTTP layers to a status.

    TidewheelError            base; its text is for people: where: what is wrong (got what); what to do
    |-- SpecError             a model project is wrong; carries every problem with file and line
    |-- InputError            a file, a row or an argument is wrong
    |-- NotFound              the named project, version, decision or file does not exist
    |-- Conflict              somebody else changed the same fact first; read again and retry
    |-- UnsafePlan            a plan that a guard refuses
    |-- ContractViolation     digest, parity, golden request or schema does not match
    `-- Unavailable           a neighbour does not answer; trying again later helps

Vendor errors are translated in adapters with ``raise ... from error``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class TidewheelError(Exception):
    """Base of all errors whose text is meant for the person at the terminal (exit code 1)."""


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake in a file: ``line`` is 1-based, 0 where the position is not known."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.message}"


class SpecError(TidewheelError):
    """A model project that cannot be used; ``problems`` holds every mistake, sorted by file and line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(problems))
        count = len(self.problems)
        title = f"{count} problem{'s' if count != 1 else ''} in the project"
        super().__init__("\n".join([title, *(f"  {problem}" for problem in self.problems)]))


class InputError(TidewheelError):
    """A file, a row or an argument that cannot be used."""


class NotFound(TidewheelError):
    """A named thing that does not exist."""


class Conflict(TidewheelError):
    """A compare-and-set that lost: the fact moved on since it was read."""


class UnsafePlan(TidewheelError):
    """A plan that a guard refuses to apply."""


class ContractViolation(TidewheelError):
    """A digest, parity, golden-request or schema check that failed."""


class Unavailable(TidewheelError):
    """A neighbour that does not answer within its time-out; trying again later helps."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an OSError that names no file, as a write to an open one on a full disk does, the ``path`` it is about."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
