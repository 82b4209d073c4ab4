"""Paths of the HTTP interface: which there are, with which method, and what each asks for."""

from __future__ import annotations

from dataclasses import dataclass

from tidewheel.errors import NotFound, TidewheelError


class NotAllowed(TidewheelError):
    """The path exists, the method does not (405)."""

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class Route:
    """``asks`` is one of the values below; ``version`` is the one that the path names."""

    asks: str
    version: str | None = None
    posts: bool = False


_FIXED = {
    "/": Route("alive"),
    "/metrics": Route("metrics"),
    "/status": Route("status"),
    "/openapi.json": Route("openapi"),
    "/v2": Route("server"),
    "/v2/health/live": Route("live"),
    "/v2/health/ready": Route("server ready"),
    "/v2/models": Route("models"),
    "/v1/models": Route("models"),
}
OPEN_TO_ALL = frozenset({"alive", "metrics", "status", "live", "server ready"})  # probes and scrapers carry no API key


def route_of(method: str, path: str, project: str) -> Route:
    """Raises NotFound, and NotAllowed with the methods that there are."""
    route = _FIXED.get(path) or _of_model(path, project)
    if route is None:
        raise NotFound(
            f"{method[:10]} {path[:100]}: no such route or model; this server has /v2/models/{project} and "
            f"/v1/models/{project}"
        )
    allowed = ("POST",) if route.posts else ("GET", "HEAD")
    if method not in allowed:
        raise NotAllowed(f"{method[:10]} {path[:100]}: use {allowed[0]}", ", ".join(allowed))
    return route


def _of_model(path: str, project: str) -> Route | None:
    if path.startswith("/v2/models/"):
        model, *rest = path[len("/v2/models/") :].split("/")
        version, rest = _version(rest)
        kinds = {(): Route("metadata", version), ("ready",): Route("model ready", version)}
        kinds[("infer",)] = Route("infer", version, posts=True)
        return kinds.get(tuple(rest)) if model == project else None
    if path.startswith("/v1/models/"):
        tail, colon, verb = path[len("/v1/models/") :].partition(":")
        model, *rest = tail.split("/")
        version, rest = _version(rest)
        if model != project or rest or (colon and verb not in ("predict", "explain")):
            return None
        return Route(verb, version, posts=True) if colon else Route("v1 ready", version)
    return None


def _version(rest: list[str]) -> tuple[str | None, list[str]]:
    if len(rest) > 1 and rest[0] == "versions" and rest[1]:
        return rest[1], rest[2:]
    return None, rest
