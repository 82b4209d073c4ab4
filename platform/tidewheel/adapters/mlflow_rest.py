"""MLflow's REST API over httpx: time-outs, and MLflow's error codes as ours.

Importing the mlflow package costs seconds; its REST API is small and stable, and stock clients read what it stores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from tidewheel.errors import Conflict, ContractViolation, InputError, NotFound, TidewheelError, Unavailable

_CHUNK_BYTES = 1 << 20
_CODES: dict[str, type[TidewheelError]] = {
    "RESOURCE_DOES_NOT_EXIST": NotFound,
    "NOT_FOUND": NotFound,
    "RESOURCE_ALREADY_EXISTS": Conflict,
    "INVALID_PARAMETER_VALUE": InputError,
    "BAD_REQUEST": InputError,
    "PERMISSION_DENIED": Unavailable,
}


class MlflowRest:
    """One server. A name and password may stand in the URI (``http://user:password@host``); else they come from where
    MLflow's own clients look: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."""

    def __init__(self, uri: str, timeout_s: float) -> None:
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"MLflow's URI must start with http:// or https:// (got {uri!r})")
        port = f":{parts.port}" if parts.port else ""
        self.uri = f"{parts.scheme}://{parts.hostname}{port}{parts.path}".rstrip("/")
        user = parts.username or os.environ.get("MLFLOW_TRACKING_USERNAME")
        secret = parts.password if parts.username else os.environ.get("MLFLOW_TRACKING_PASSWORD")
        auth = httpx.BasicAuth(user, secret or "") if user else None
        self._http = httpx.Client(
            base_url=self.uri,
            auth=auth,
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 3.0)),
            trust_env=parts.hostname not in ("127.0.0.1", "localhost", "::1"),  # a proxy cannot reach our loopback
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        return self._call("GET", path, params=params)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._call("POST", path, json=body)

    def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._call("PATCH", path, json=body)

    def delete(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._call("DELETE", path, json=body)

    def upload(self, artifact_uri: str, name: str, data: bytes) -> None:
        """Store ``data`` as ``name`` under a proxied artifact URI."""
        url = self._artifact_url(artifact_uri, name)
        with self._translated():
            self._checked(self._http.put(url, content=data))

    def download(self, artifact_uri: str, name: str, path: Path, max_bytes: int) -> None:
        """Raises NotFound where the artifact is gone, ContractViolation where it is larger than ``max_bytes``."""
        url = self._artifact_url(artifact_uri, name)
        with self._translated(), self._http.stream("GET", url) as response:
            if response.is_error:
                response.read()
            self._checked(response)
            size = 0
            with path.open("wb") as file:
                for chunk in response.iter_bytes(_CHUNK_BYTES):
                    size += len(chunk)
                    if size > max_bytes:
                        raise ContractViolation(f"{self.uri}: {name} is larger than its manifest says ({max_bytes})")
                    file.write(chunk)

    def _artifact_url(self, artifact_uri: str, name: str) -> str:
        parts = urlsplit(artifact_uri)
        if parts.scheme != "mlflow-artifacts":
            raise InputError(
                f"{self.uri}: MLflow does not proxy artifacts (got {artifact_uri.split('?', maxsplit=1)[0]!r}); "
                "start its server with --artifacts-destination"
            )
        path = str(PurePosixPath(parts.path) / name).lstrip("/")
        return f"/api/2.0/mlflow-artifacts/artifacts/{quote(path)}"

    def _call(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        with self._translated():
            response = self._checked(self._http.request(method, f"/api/2.0/mlflow/{path}", **kwargs))
        body: dict[str, Any] = response.json()
        return body

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise Unavailable(f"{self.uri}: MLflow did not answer in time; see 'tidewheel logs mlflow'") from error
        except httpx.TransportError as error:
            raise Unavailable(f"{self.uri}: MLflow does not answer ({error}); run 'tidewheel up'") from error

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if response.is_success:
            return response
        try:
            body = response.json()
            code, message = str(body.get("error_code", "")), str(body.get("message", ""))
        except ValueError:
            code, message = "", response.text[:200]
        if response.status_code == 404 and not code:
            code = "NOT_FOUND"
        kind = _CODES.get(code, Unavailable)
        raise kind(
            f"{self.uri}: MLflow says {response.status_code} {code}: {message.splitlines()[0] if message else ''}"
        )
