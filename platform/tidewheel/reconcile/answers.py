"""A person's answer to a decision that waits, as it travels to a controller."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from tidewheel.errors import InputError


@dataclass(frozen=True)
class Answer:
    verb: Literal["approve", "refuse"]
    decision: str
    actor: str
    reason: str

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Answer:
        """Raises InputError."""
        try:
            answer = cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise InputError(f"no answer to a decision ({error})") from error
        if answer.verb not in ("approve", "refuse") or not answer.decision or not answer.reason:
            raise InputError("an answer has a verb (approve or refuse), a decision, an actor and a reason")
        return answer
