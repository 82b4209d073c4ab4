"""What ``s3://BUCKET[/PREFIX]?endpoint=http://HOST:PORT&region=NAME`` stands for. Credentials never stand in it: they
come from where AWS's own tools look, the environment, files or the pod's role."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from tidewheel.errors import InputError

FORM = "s3://BUCKET[/PREFIX] with ?endpoint=http://HOST:PORT and &region=NAME where they are needed"
_OPTIONS = {"endpoint", "region"}


@dataclass(frozen=True)
class S3Url:
    """``prefix`` has no slash at either end; ``endpoint`` None is AWS itself."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str = "us-east-1"

    def key(self, *below: str) -> str:
        """The key of a path below the prefix."""
        return "/".join((*([self.prefix] if self.prefix else ()), *below))


def parse_s3_url(url: str) -> S3Url:
    """Raises InputError; its text shows no more than the host, so that a secret put there by mistake stays unseen."""
    parts = urlsplit(url)
    options = parse_qs(parts.query)
    if parts.scheme != "s3" or not parts.hostname or parts.username or parts.password or set(options) - _OPTIONS:
        raise InputError(f"object store {parts.scheme}://{parts.hostname or ''}: cannot be used; allowed: {FORM}")
    endpoint = options.get("endpoint", [""])[0].rstrip("/")
    if endpoint and urlsplit(endpoint).scheme not in ("http", "https"):
        raise InputError(f"object store {url.partition('?')[0]}: endpoint must begin with http:// or https://")
    prefix = "/".join(part for part in parts.path.split("/") if part)
    return S3Url(parts.netloc, prefix, endpoint or None, options.get("region", ["us-east-1"])[0])
