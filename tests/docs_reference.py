"""Write the generated references again: `make generate`; the docs tests check that they are current."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
from click.testing import CliRunner

from chart_reference import write_chart_files
from tidewheel.cli.main import COMMANDS, cli
from tidewheel.findings import REASONS
from tidewheel.spec.schema import project_schema_text

PLATFORM = Path(__file__).resolve().parents[1] / "platform"
PROTO = PLATFORM / "tidewheel" / "serving" / "proto"
REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"


def cli_reference_text() -> str:
    """docs/reference/cli.md from each command's --help."""
    parts = ["# Command line", "", "Made from `--help` by `make generate`.", ""]
    with click.Context(cli, info_name="tidewheel") as context:
        for name in COMMANDS:
            command = cli.get_command(context, name)
            assert command is not None
            names = [name]
            if isinstance(command, click.Group):
                names += [f"{name} {sub}" for sub in command.list_commands(context)]
            for full in names:
                text = (
                    CliRunner().invoke(cli, [*full.split(), "--help"], prog_name="tidewheel", terminal_width=100).output
                )
                level = "##" if full == name else "###"
                parts += [f"{level} tidewheel {full}", "", "```", text.rstrip(), "```", ""]
    return "\n".join(parts)


def runbooks_index_text() -> str:
    """docs/runbooks/README.md from the reasons there are."""
    rows = [f"| [{reason}]({reason}.md) | {meaning} |" for reason, meaning in REASONS.items()]
    head = (
        "# Runbooks\n\nA page per reason: what it means, where to look, what to do. Findings, decisions, metrics\n"
        "and log lines use the same word. Made from `findings.REASONS` by `make generate`.\n\n"
        "| reason | it means |\n|---|---|"
    )
    return "\n".join([head, *rows, ""])


def protocol_texts() -> dict[str, str]:
    """Modules of the gRPC protocol by file name, from its .proto."""
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        source = "tidewheel/serving/proto/open_inference.proto"
        arguments = [f"-I{PLATFORM}", f"--python_out={made}", f"--pyi_out={made}", source]
        if protoc.main(["protoc", *arguments]) != 0:
            raise RuntimeError(f"protoc cannot read {source}")
        return {path.name: path.read_text() for path in (made / source).parent.iterdir()}


def main() -> None:
    REFERENCE.mkdir(parents=True, exist_ok=True)
    (REFERENCE / "cli.md").write_text(cli_reference_text(), encoding="utf-8")
    (REFERENCE.parent / "runbooks" / "README.md").write_text(runbooks_index_text(), encoding="utf-8")
    for name, text in protocol_texts().items():
        (PROTO / name).write_text(text, encoding="utf-8")
    write_chart_files()
    (REFERENCE / "project.schema.json").write_text(project_schema_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
