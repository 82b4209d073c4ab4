"""What the supervisor says about the local platform: processes, ports, health.

The supervisor writes the file; commands and processes only read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tidewheel.adapters.local_home import LocalHome
from tidewheel.errors import NotFound
from tidewheel.whole_file import write_whole


@dataclass(frozen=True)
class ProcessState:
    """One local process; ``state`` is starting, running, backing-off or stopped."""

    pid: int | None
    state: str
    port: int | None = None
    restarts: int = 0
    log: str = ""
    last_exit: int | None = None


@dataclass(frozen=True)
class PlatformState:
    """The local platform; ``state`` is starting, running or stopping."""

    pid: int
    started_at_us: int
    state: str
    mlflow_uri: str
    processes: Mapping[str, ProcessState] = field(default_factory=dict)
    endpoints: Mapping[str, str] = field(default_factory=dict)
    grpc_endpoints: Mapping[str, str] = field(default_factory=dict)  # HOST:PORT by project, where gRPC is installed

    def endpoint(self, project: str) -> str:
        """Base URL of the project's model servers, such as ``http://127.0.0.1:40123``."""
        if project not in self.endpoints:
            raise NotFound(f"{project}: no model server runs; train and promote a version first")
        return self.endpoints[project]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def write_platform(home: LocalHome, state: PlatformState) -> None:
    write_whole(home.state_file, json.dumps(state.to_json(), indent=1).encode())


def read_platform(home: LocalHome) -> PlatformState:
    """The newest state; raises NotFound where the platform does not run or its file is damaged.

    A supervisor that lives writes it again at once; `down` ends what runs also without it.
    """
    try:
        body = json.loads(home.state_file.read_bytes())
        processes = {name: ProcessState(**process) for name, process in body.pop("processes").items()}
        return PlatformState(processes=processes, **body)
    except FileNotFoundError:
        raise NotFound(f"{home.root.parent}: the platform is not running; run 'tidewheel up' there") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotFound(
            f"{home.state_file}: damaged ({type(error).__name__}: {error}); run 'tidewheel down', then 'tidewheel up'"
        ) from error
