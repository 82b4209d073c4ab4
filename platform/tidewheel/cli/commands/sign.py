"""tidewheel sign: vouch for registered versions with a key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from tidewheel.cli.output import Output, output_option, project_argument, table


@click.command()
@project_argument
@click.option("--version", "numbers", multiple=True, help="A version to sign; may be repeated. All by default.")
@click.option("--signing-key", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Private key (PEM); TIDEWHEEL_SIGNING_KEY_FILE or the home's by default.")  # fmt: skip
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", show_envvar=True, metavar="URI",
              help="MLflow's address; the running platform's by default.")  # fmt: skip
@output_option
def command(
    project: Path, numbers: tuple[str, ...], signing_key: Path | None, tracking_uri: str | None, output: Output
) -> int:
    """Sign registered versions of PROJECT: those from before bundles were signed, or all after a change of keys.

    Each bundle is fetched and compared with its registered digest first; digests and versions stay as they are. What
    this key signed already is left alone.

    \b
    Example:
      tidewheel sign card-fraud
      tidewheel sign card-fraud --version 3 --signing-key new.pem
    """
    from tidewheel.adapters import signing_keys
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.adapters.mlflow_registry import MlflowRegistry
    from tidewheel.adapters.platform_state import read_platform
    from tidewheel.cli.commands.promote import actor
    from tidewheel.journal.ledger import Journal
    from tidewheel.spec.load import load_project
    from tidewheel.training.sign import sign_versions

    name, home = load_project(project).name, LocalHome.of(project)
    registry = MlflowRegistry(tracking_uri or read_platform(home).mlflow_uri)
    key = signing_keys.signing_key(home, signing_key)
    with output.progress("sign"):
        done = sign_versions(registry, name, numbers, home.bundles, key)
    with Journal(home.journal_url) as journal:
        for one in done:
            body = {"version": one.number, "digest": one.digest, "key": key.public.fingerprint}
            journal.append(name, "signed", body, actor=actor())
    trusted = key.public.fingerprint in {one.fingerprint for one in signing_keys.trusted_keys(home).keys}
    data: dict[str, Any] = {
        "name": name,
        "key": key.public.fingerprint,
        "trusted_here": trusted,
        "versions": [{"version": one.number, "digest": one.digest} for one in done],
    }

    def render(console: Console) -> None:
        title = f"signed with key {key.public.fingerprint[:12]}"
        console.print(table(title, ("version", "digest"), [(one.number, one.digest[:12]) for one in done]))
        if not trusted:
            console.print("note: this key is not trusted here; see docs/how-to/signing.md", markup=False)

    output.result(data, render)
    return 0
