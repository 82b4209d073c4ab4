"""tidewheel new: a model project from a template, ready to run."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import click
from rich.console import Console

from tidewheel.cli.output import Output, output_option
from tidewheel.errors import InputError, NotFound

NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")


def templates_folder() -> Path:
    """Templates of the installed package, or of the repository in a development checkout."""
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "templates", package.parents[1] / "model_templates"):
        if folder.is_dir():
            return folder
    raise NotFound(f"{package}: this installation has no templates; install tidewheel again")


@click.command()
@click.argument("name")
@click.option("--template", default="card_fraud", show_default=True, help="Which template to start from.")
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), help="Folder to make; NAME by default.")
@output_option
def command(name: str, template: str, into: Path | None, output: Output) -> int:
    """Start the model project NAME in a new folder.

    \b
    Example:
      tidewheel new card-fraud --template card_fraud
    """
    from tidewheel.spec.schema import project_schema_text

    if not NAME.fullmatch(name):
        raise InputError(f"{name}: not a project name; lower-case letters, digits and '-', at most 40, letter first")
    source = templates_folder() / template
    known = sorted(folder.name for folder in templates_folder().iterdir() if (folder / "project.yaml").is_file())
    if template not in known:
        raise NotFound(f"{template}: no such template; there are {', '.join(known)}")
    target = into if into is not None else Path(name)
    if target.exists() and any(target.iterdir()):
        raise InputError(f"{target}: exists and is not empty; choose another name or --into another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        made = Path(scratch) / "project"
        shutil.copytree(source, made, ignore=shutil.ignore_patterns("__pycache__", ".tidewheel", "*.pyc"))
        spec = made / "project.yaml"
        text = re.sub(r"(?m)^name: .*$", f"name: {name}", spec.read_text(encoding="utf-8"), count=1)
        spec.write_text(text, encoding="utf-8")
        schema = made / ".tidewheel" / "project.schema.json"
        schema.parent.mkdir()
        schema.write_text(project_schema_text(), encoding="utf-8")
        if target.exists():
            target.rmdir()
        made.rename(target)

    def render(console: Console) -> None:
        console.print(f"[green]made[/] {target}: read its README.md, then")
        console.print(f"  tidewheel validate {target}\n  tidewheel up {target}")

    files = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    output.result({"name": name, "template": template, "folder": target, "files": files}, render)
    return 0
