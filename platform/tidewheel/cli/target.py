"""``--target``: where a command acts, on this machine or in a cluster by a context of the kubeconfig."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from tidewheel.adapters.cluster_target import ClusterTarget

F = TypeVar("F", bound=Callable[..., Any])
LOCAL = "local"


def target_option(function: F) -> F:
    """``--target local|CONTEXT`` and ``--namespace``; the command receives both as text."""
    function = click.option(
        "--namespace", envvar="TIDEWHEEL_NAMESPACE", default="tidewheel", show_default=True, metavar="NAME",
        help="Namespace of the installation, with --target CONTEXT.",
    )(function)  # fmt: skip
    return click.option(
        "--target", envvar="TIDEWHEEL_TARGET", default=LOCAL, show_default=True, metavar="local|CONTEXT",
        help="Act on this machine, or in a cluster by a context of your kubeconfig.",
    )(function)  # fmt: skip


def cluster_of(target: str, namespace: str) -> ClusterTarget | None:
    """None on this machine. Raises InputError where the kubeconfig has no such context."""
    if target == LOCAL:
        return None
    from tidewheel.errors import InputError

    try:
        from tidewheel.adapters.cluster_target import ClusterTarget

        return ClusterTarget(target, namespace)
    except ModuleNotFoundError as error:
        raise InputError(f"--target {target}: {error.name} is not installed; install tidewheel[cluster]") from error
