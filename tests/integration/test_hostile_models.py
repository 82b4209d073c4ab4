"""Mutants of a good bundle, signed by a trusted key and not: none is served wrongly and the server never goes down.

TIDEWHEEL_MUTANTS says how many (200; a soak takes 2,000), TIDEWHEEL_MUTANT_SEED which.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memory.online_store import MemoryOnlineStore
from memory.signing import KEY, trust, trust_in
from memory.tiny import place_bundle
from servers.mlflow import free_port
from tidewheel.adapters.local_cluster import LocalCluster
from tidewheel.adapters.local_home import LocalHome
from tidewheel.bundle.files import GOLDEN, MODEL_ONNX, MODEL_UBJ, SERVING_PLAN
from tidewheel.bundle.manifest import MANIFEST, SIGNATURE, digest_of, write_manifest
from tidewheel.bundle.scorer import OnnxScorer
from tidewheel.bundle.signature import sign_bundle
from tidewheel.deployment.document import DeploymentDocument, Variant
from tidewheel.serving.last_good import LastGood
from tidewheel.serving.load import LoadRefused, Stores, load_version
from tidewheel.serving.parse_child import Limits, ParseChild
from waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

N_MUTANTS = int(os.environ.get("TIDEWHEEL_MUTANTS", "200"))
SEED = int(os.environ.get("TIDEWHEEL_MUTANT_SEED", "1"))
TARGETS = (MODEL_UBJ, MODEL_ONNX, SERVING_PLAN, GOLDEN, MANIFEST, SIGNATURE)
BANDS = {"approve": 0.0, "review": 0.5, "decline": 0.9}
BOMBS = (b"", b"[" * 100_000, b"{L" * 50_000, b"\x00" * 4096, b'{"a":' * 20_000, b"\xff" * 100_000, b"null", b"{}")
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63)


def mutant(data: bytes, chance: random.Random) -> bytes:
    """Bytes that differ: flips, cuts, repeats, large numbers, or something else altogether."""
    made = bytearray(data)
    kind = chance.randrange(8)
    at = chance.randrange(len(made))
    if kind <= 2:
        for _ in range(1 << chance.randrange(6)):
            made[chance.randrange(len(made))] ^= 1 << chance.randrange(8)
    elif kind == 3:
        del made[at:]
    elif kind == 4:
        del made[at : at + chance.randrange(1, 64)]
    elif kind == 5:
        made[at:at] = made[at : at + chance.randrange(1, 4096)] * chance.randrange(1, 50)
    elif kind == 6:
        size = chance.choice((1, 2, 4, 8))
        made[at : at + size] = (chance.choice(NUMBERS) & ((1 << 8 * size) - 1)).to_bytes(
            size, chance.choice(("big", "little"))
        )
    else:
        made = bytearray(chance.choice(BOMBS))
    return bytes(made)


def json_mutant(data: bytes, chance: random.Random) -> bytes:
    """JSON that parses, with one value that is another."""
    body = json.loads(data)
    node: Any = body
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key = chance.choice(list(keys))
        if isinstance(node[key], dict | list) and node[key] and chance.random() < 0.9:
            node = node[key]
            continue
        value = node[key]
        others: list[Any] = [None, -1, 1e308, "x", [], {}, True, 2**70]
        if isinstance(value, int | float) and not isinstance(value, bool):
            others += [value + 0.001, value * 2 + 1, -value]
        node[key] = chance.choice(others)
        return json.dumps(body).encode()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    return home / "bundles" / place_bundle(home / "bundles", home / "scratch", seed=1)


@pytest.fixture(scope="module")
def parser() -> Iterator[ParseChild]:
    child = ParseChild(os.environ, Limits(deadline_s=10.0, cpu_s=8))
    yield child
    child.stop()


def rows() -> np.ndarray:
    """Many vectors, also far from the golden ones, a third of them with missing values."""
    rng = np.random.default_rng(11)
    x = rng.uniform(-50, 400, size=(5_000, 3)).astype(np.float32)
    x[rng.random(x.shape) < 0.15] = np.nan
    return x


def make(good: Path, folder: Path, chance: random.Random) -> tuple[str, str]:
    """A mutant in ``folder``: (what was changed, its digest as a registry would have it)."""
    shutil.copytree(good, folder)
    target = chance.choice(TARGETS)
    path = folder / target
    data = path.read_bytes()
    as_json = target.endswith((".json", ".sig")) and chance.random() < 0.5
    changed = json_mutant(data, chance) if as_json else mutant(data, chance)
    while changed == data:
        changed = mutant(data, chance)
    path.write_bytes(changed)
    signed = chance.random() < 0.75
    if target == SIGNATURE:
        return "signature", digest_of((folder / MANIFEST).read_bytes())
    if target == MANIFEST:  # named by the digest of its own bytes, so that it is parsed
        return "manifest", digest_of(changed)
    digest = write_manifest(folder)
    if signed:
        sign_bundle(folder, digest, KEY)
    return f"{'signed' if signed else 'unsigned'} {target}", digest


@contextmanager
def server(home: LocalHome, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable, "-m", "tidewheel.apps.model_server", "--home", str(home.root), "--project", "tiny",
        "--port", str(port),
    ]  # fmt: skip
    with (home.root / "server.log").open("ab") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            yield process
        finally:
            process.kill()


class Probe:
    """Asks without a pause until told to stop; every answer that is not a score of version 1 counts as a failure."""

    def __init__(self, port: int) -> None:
        inputs = [{"name": "customer_id", "shape": [1], "datatype": "INT64", "data": [7]}]
        self._body = json.dumps({"inputs": inputs}).encode()
        self._url = f"http://127.0.0.1:{port}/v2/models/tiny/infer"
        self._stop = threading.Event()
        self.n_right, self.wrong = 0, list[str]()

    def ask(self) -> str:
        with urllib.request.urlopen(urllib.request.Request(self._url, self._body), timeout=10) as answer:
            body = json.loads(answer.read())
        return str({output["name"]: output["data"][0] for output in body["outputs"]}["model_version"])

    def __enter__(self) -> Probe:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            try:
                version = self.ask()
            except (OSError, ValueError, KeyError) as error:
                self.wrong.append(repr(error))
                continue
            self.n_right += version == "1"
            if version != "1":
                self.wrong.append(f"version {version}")


def test_a_server_that_is_given_mutants_never_stops_answering(good: Path, tmp_path: Path) -> None:
    home = LocalHome(trust_in(tmp_path / "home"))
    shutil.copytree(good, home.bundles / good.name)
    cluster, first = LocalCluster(home), Variant("1", good.name, BANDS)

    def deploy(generation: int, *others: Variant) -> None:
        warm = tuple(one.version for one in others)
        document = DeploymentDocument(
            "tiny", generation, "customer_id", "s", "1", (first, *others), {"1": 1.0}, (), warm
        )  # fmt: skip
        cluster.write_document(document)

    def state_of(version: str) -> str:
        told = [status.versions.get(version) for status in cluster.server_status("tiny")]
        return told[0].state if told and told[0] is not None else ""

    deploy(1)
    with server(home, port := free_port()) as process:
        until(lambda: state_of("1") == "ready", 60)
        with Probe(port) as probe:
            for number in range(max(N_MUTANTS // 10, 1)):
                folder = tmp_path / f"mutant-{number}"
                _, digest = make(good, folder, random.Random(f"server/{SEED}/{number}"))
                if digest == good.name:  # only the signature differs: it would take the good bundle's place
                    continue
                folder.rename(home.bundles / digest)
                deploy(number + 2, Variant(f"m{number}", digest, BANDS))
                until(lambda n=number: state_of(f"m{n}") in ("failed", "ready"), 60)
        assert process.poll() is None
        assert (probe.wrong, probe.n_right > N_MUTANTS // 10) == ([], True)
        assert probe.ask() == "1"


def test_no_mutant_is_served_wrongly_and_nothing_that_loads_it_goes_down(
    good: Path, parser: ParseChild, tmp_path: Path
) -> None:
    store = MemoryOnlineStore()
    stores = Stores(store, store, LastGood())
    x = rows()
    right = OnnxScorer(good / MODEL_ONNX, 3).score(x)
    told: Counter[str] = Counter()
    for number in range(N_MUTANTS):
        chance = random.Random(f"{SEED}/{number}")
        folder = tmp_path / "mutant"
        what, digest = make(good, folder, chance)
        try:
            loaded = load_version(folder, Variant("2", digest, BANDS), stores, trust, parser.check)
        except LoadRefused as error:
            told[f"{what}: {error.finding.reason}"] += 1
        else:
            told[f"{what}: loaded"] += 1
            assert not what.startswith("unsigned"), f"mutant {SEED}/{number} is not signed and was loaded"
            off = np.abs(loaded.scorer.score(x) - right).max()
            assert off <= 2e-5, f"mutant {SEED}/{number} ({what}) scores {off:g} off"
        shutil.rmtree(folder)
    print(*(f"{n:5d} {what}" for what, n in sorted(told.items())), sep="\n")
    assert parser.check(good, good.name) is None
    assert sum(n for what, n in told.items() if "loaded" in what) < N_MUTANTS / 5
    assert {"LoadFailed", "BundleInvalid", "SignatureInvalid"} <= {what.split(": ")[1] for what in told}
    assert threading.active_count() < 20
