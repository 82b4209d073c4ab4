"""What is wanted of a Redis as commands, and their replies as blobs: one HMGET per entity, whatever it asks of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidewheel.adapters.redis_link import ReplyError
from tidewheel.features.declaration import StateView
from tidewheel.features.feast_layout import STATE, decode_bytes, feast_project, feature_field
from tidewheel.features.ports import Wanted

_HMGET = b"$5\r\nHMGET\r\n"


@dataclass(eq=False)
class _Group:
    """States that are wanted of the same entities."""

    keys: Sequence[bytes]
    project: bytes
    fields: list[bytes]
    states: list[int]  # indexes of the wanted


class ReadLayout:
    """Remembers where each state lies."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[bytes, bytes]] = {}  # by state: its field, and the project behind entity keys

    def groups(self, wanted: Wanted) -> list[_Group]:
        groups: list[_Group] = []
        for index, (state, keys) in enumerate(wanted):
            field, project = self._places.get(state.state_id) or self._place(state)
            for group in groups:
                if group.keys is keys and group.project == project:
                    group.fields.append(field)
                    group.states.append(index)
                    break
            else:
                groups.append(_Group(keys, project, [field], [index]))
        return groups

    def _place(self, state: StateView) -> tuple[bytes, bytes]:
        place = feature_field(state.feast_view, STATE), feast_project(state.project).encode()
        return self._places.setdefault(state.state_id, place)


def commands_of(groups: Sequence[_Group]) -> list[tuple[bytes, ...]]:
    """One command per entity of each group, in order."""
    return [(b"HMGET", key + group.project, *group.fields) for group in groups for key in group.keys]


def packed(groups: Sequence[_Group]) -> tuple[bytes, int]:
    """The same as bytes on the wire, and how many there are. Far cheaper than packing each by itself."""
    parts: list[bytes] = []
    n = 0
    for group in groups:
        head = b"*%d\r\n%b$" % (2 + len(group.fields), _HMGET)
        tail = b"".join([b"\r\n", *(b"$%d\r\n%b\r\n" % (len(field), field) for field in group.fields)])
        project, more = group.project, len(group.project)
        parts += [b"%b%d\r\n%b%b%b" % (head, len(key) + more, key, project, tail) for key in group.keys]
        n += len(group.keys)
    return b"".join(parts), n


def blobs_of(
    groups: Sequence[_Group], n_wanted: int, replies: Sequence[object]
) -> tuple[list[list[bytes | None]], dict[tuple[int, int], str]]:
    """Blobs by wanted state, parallel to its keys, and what was refused by (state, key) index."""
    found: list[list[bytes | None]] = [[] for _ in range(n_wanted)]
    refused: dict[tuple[int, int], str] = {}
    start = 0
    for group in groups:
        mine: list[Any] = list(replies[start : start + len(group.keys)])
        start += len(group.keys)
        for at, reply in enumerate(mine):
            if type(reply) is not list:
                said = str(reply) if isinstance(reply, ReplyError) else f"{type(reply).__name__} for a hash"
                refused |= {(index, at): said for index in group.states}
                mine[at] = [None] * len(group.fields)
        for nth, index in enumerate(group.states):
            found[index] = [decode_bytes(values[nth]) for values in mine]
    return found, refused
