"""A site without internet: every image is copied, and the chart then names each where it is, by its digest."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from chart.judge import containers, pods
from chart.test_chart import objects_of, template

REGISTRY = "registry.example.com/team"
SKOPEO = """#!/bin/sh
# As far as the script uses it: copies nothing, and answers with a digest of the name.
if [ "$1" = copy ]; then echo "$4 $5" >> "$COPIED"; exit; fi
for last; do :; done
echo "sha256:$(printf %s "$last" | sha256sum | cut -d' ' -f1)"
"""


def test_the_values_that_are_printed_name_every_image_by_digest(repository: Path, tmp_path: Path) -> None:
    tool = tmp_path / "skopeo"
    tool.write_text(SKOPEO)
    tool.chmod(0o755)
    copied, values = tmp_path / "copied", tmp_path / "values.yaml"
    done = subprocess.run(
        [repository / "charts" / "mirror-images", f"{REGISTRY}/"],
        capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "COPIED": str(copied)},
    )  # fmt: skip
    values.write_text(done.stdout)
    listed = (repository / "charts" / "images.txt").read_text().split()
    assert [line.split()[0] for line in copied.read_text().splitlines()] == [f"docker://{image}" for image in listed]
    used = {one["image"] for _, _, spec in pods(objects_of(template("-f", str(values)))) for one in containers(spec)}
    assert len(used) == len(listed) - 1, "all but serving, which the controller starts"
    for image in used:
        assert image.startswith(f"{REGISTRY}/"), image
        assert "@sha256:" in image, image


def test_it_says_how_it_is_used(repository: Path) -> None:
    done = subprocess.run(
        [repository / "charts" / "mirror-images"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "registry.example.com" in done.stderr
