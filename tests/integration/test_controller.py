"""The controller over a real journal and real bundles: aliases move, servers follow, crashes change nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from memory.cluster import MemoryCluster
from memory.model_registry import MemoryRegistry
from memory.signing import KEY, trust
from memory.tiny import OTHER_FEATURES_PY, T0_US, write_bundle, write_project
from tidewheel.adapters.lake_parts import write_file
from tidewheel.bundle.registry import Version
from tidewheel.bundle.signature import SigningKey, signature_of
from tidewheel.clock import HOUR_US, FixedClock
from tidewheel.deployment.status import VersionStatus
from tidewheel.errors import Unavailable
from tidewheel.journal.ledger import Journal
from tidewheel.reconcile.applied import apply_project
from tidewheel.reconcile.controller import Controller
from tidewheel.reconcile.head import head_from_body
from tidewheel.serving.prediction_record import PredictionRecord, record_id
from tidewheel.serving.prediction_table import prediction_schema, to_table
from tidewheel.training.sign import sign_versions

pytestmark = pytest.mark.integration


class Killed(BaseException):
    """The process is gone."""


class World:
    """A home with an applied project, three registered versions and a controller that may be killed at a write."""

    def __init__(
        self, folder: Path, bundles: dict[str, tuple[Path, str]], *, tier: int = 2, flips: float = 1.0
    ) -> None:
        self.home = folder / "home"
        self.clock = FixedClock(T0_US)
        apply_project(write_project(folder / "project", tier=tier, flips=flips), self.home, clock=self.clock)
        self.journal = Journal(f"sqlite:///{self.home / 'journal.db'}", self.clock)
        self.registry, self.cluster = MemoryRegistry(), MemoryCluster()
        for bundle, digest in bundles.values():
            self.registry.register("tiny", bundle, digest, tags={}, metrics={}, params={})
        self.n_parts = 0

    def controller(self) -> Controller:
        return Controller(self.home, self.journal, self.registry, self.cluster, self.clock, trust)

    def settle(self, rounds: int = 4) -> None:
        controller = self.controller()
        for _ in range(rounds):
            controller.round()

    def champion(self) -> str | None:
        document = self.cluster.read_document("tiny")
        return document.champion if document else None

    def serve(self, from_us: int, to_us: int, n: int = 120, *, flip: bool = False) -> None:
        """Requests of a stretch of event time, answered as the document says."""
        document = self.cluster.read_document("tiny")
        assert document is not None
        rows = []
        for number in range(n):
            at_us = from_us + (to_us - from_us) * number // (n - 1)
            names = [list(document.weights)[0 if number % 4 == 0 else -1], *document.shadow]
            for version in names:
                shadow = version in document.shadow
                role = "shadow" if shadow else ("champion" if version == document.champion else "canary")
                request, digest = f"{at_us}-{number}", document.variant(version).digest
                decision = "decline" if shadow and flip else "approve"
                rows.append(
                    PredictionRecord(
                        record_id("tiny", request, version, role), request, "tiny", version, digest, role,
                        document.generation, at_us, request, "7", b"", "f", 0.1, decision, False, (), 900, at_us, {},
                    )
                )  # fmt: skip
        self.n_parts += 1
        folder = self.home / "lake" / "predictions" / "tiny"
        write_file(to_table(rows, prediction_schema({})), folder / f"part-0-{self.n_parts:05d}.parquet")

    def end_state(self) -> tuple[object, ...]:
        newest = self.journal.head("tiny")
        assert newest is not None
        document = self.cluster.read_document("tiny")
        assert document is not None
        decisions = [(d.id, d.state, d.decision.action) for d in self.journal.decisions("tiny")]
        head = head_from_body(newest.body)
        return head.champion, head.previous, head.rollout, dict(document.weights), document.shadow, decisions, (
            self.registry.aliases("tiny")
        )  # fmt: skip


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    made = {}
    for number, features in (("1", {}), ("2", {"features": OTHER_FEATURES_PY}), ("3", {})):
        folder = tmp_path_factory.mktemp(f"bundle{number}")
        made[number] = (folder, write_bundle(folder, seed=int(number), **features))
    return made


@pytest.fixture
def world(tmp_path: Path, bundles: dict[str, tuple[Path, str]]) -> World:
    return World(tmp_path, bundles)


def test_a_version_that_nobody_signed_is_refused_until_somebody_does(world: World, tmp_path: Path) -> None:
    serve_first(world)
    (tmp_path / "unsigned").mkdir()
    digest = write_bundle(tmp_path / "unsigned", seed=9, key=None)
    version = world.registry.register("tiny", tmp_path / "unsigned", digest, tags={}, metrics={}, params={})
    controller = world.controller()
    world.registry.set_alias("tiny", "champion", version.number)
    controller.round()
    controller.round()
    newest = world.journal.head("tiny")
    assert newest is not None
    refused = head_from_body(newest.body).refused[version.number]
    assert (refused.reason, world.champion()) == ("SignatureMissing", "1")
    assert "run 'tidewheel sign PROJECT'" in refused.message
    world.registry.put_signature(version, signature_of(tmp_path / "unsigned", digest, SigningKey.make()))
    world.clock.at_us += 11_000_000
    controller.round()
    assert world.champion() == "1"
    (signed,) = sign_versions(world.registry, "tiny", [version.number], tmp_path / "elsewhere", KEY)
    assert signed == version
    world.clock.at_us += 11_000_000
    controller.round()
    controller.round()
    controller.round()
    assert world.champion() == version.number


def serve_first(world: World) -> None:
    world.registry.set_alias("tiny", "champion", "1")
    world.settle()
    assert world.champion() == "1"


def test_the_first_champion_is_fetched_staged_and_served(world: World) -> None:
    serve_first(world)
    assert [document.champion for document in world.cluster.written] == [None, "1"]
    assert [server.project for server in world.cluster.servers()] == ["tiny"]
    world.journal.verify_chain()


def test_moving_the_alias_deploys_and_moving_it_back_rolls_back(world: World) -> None:
    serve_first(world)
    world.registry.set_alias("tiny", "champion", "2")
    world.settle()
    assert world.champion() == "2"
    document = world.cluster.read_document("tiny")
    assert document is not None and document.warm == ("1",)
    n = len(world.cluster.written)
    world.registry.set_alias("tiny", "champion", "1")
    world.controller().round()  # one round: the old version is warm
    assert (world.champion(), len(world.cluster.written)) == ("1", n + 1)


def test_a_settled_world_is_not_written_again(world: World) -> None:
    serve_first(world)
    before = (len(world.cluster.written), world.journal.head("tiny"))
    world.settle(5)
    assert (len(world.cluster.written), world.journal.head("tiny")) == before


def walk_through(world: World) -> None:
    """A whole rollout of version 2, to its promotion."""
    world.registry.set_alias("tiny", "challenger", "2")
    world.settle()
    world.serve(T0_US, T0_US + 2 * HOUR_US)
    world.settle()
    world.serve(T0_US + 2 * HOUR_US, T0_US + 4 * HOUR_US)
    world.settle()


def test_a_challenger_passes_its_steps_and_becomes_champion(world: World) -> None:
    serve_first(world)
    walk_through(world)
    head = world.end_state()
    assert head[:5] == ("2", "1", None, {"2": 1.0}, ())
    assert head[5] == [("promote-20200913T162640Z-v2", "executed", "promote")]
    assert head[6] == {"champion": "2"}
    weights = [dict(document.weights) for document in world.cluster.written]
    assert {"2": 0.25, "1": 0.75} in weights


def test_tier_one_waits_for_a_person(tmp_path: Path, bundles: dict[str, tuple[Path, str]]) -> None:
    world = World(tmp_path, bundles, tier=1)
    serve_first(world)
    walk_through(world)
    (decision,) = world.journal.decisions("tiny")
    assert (world.champion(), decision.state, world.registry.aliases("tiny")) == (
        "1", "pending", {"champion": "1", "challenger": "2"},
    )  # fmt: skip
    world.journal.approve(decision.id, "ann", "looks good")
    world.settle()
    assert (world.champion(), world.registry.aliases("tiny")) == ("2", {"champion": "2"})
    assert world.journal.decision(decision.id).state == "executed"


def test_a_refused_promotion_clears_the_challenger(tmp_path: Path, bundles: dict[str, tuple[Path, str]]) -> None:
    world = World(tmp_path, bundles, tier=1)
    serve_first(world)
    walk_through(world)
    world.journal.refuse(world.journal.decisions("tiny")[0].id, "ann", "not now")
    world.settle()
    assert (world.champion(), world.registry.aliases("tiny")) == ("1", {"champion": "1"})


def test_flips_abort_a_shadow(tmp_path: Path, bundles: dict[str, tuple[Path, str]]) -> None:
    world = World(tmp_path, bundles, flips=0.05)
    serve_first(world)
    world.registry.set_alias("tiny", "challenger", "2")
    world.settle()
    world.serve(T0_US, T0_US + HOUR_US // 2, flip=True)
    world.settle()
    assert (world.champion(), world.registry.aliases("tiny")) == ("1", {"champion": "1"})
    (found,) = world.journal.findings("tiny", stage="rollout")
    assert (found.finding.reason, found.context) == ("FlipsOverLimit", {"version": "2"})


def test_wrong_bytes_never_reach_a_server(world: World, bundles: dict[str, tuple[Path, str]]) -> None:
    serve_first(world)
    world.registry.corrupt(bundles["2"][1], "model.onnx")
    for alias in ("champion", "challenger"):
        world.registry.set_alias("tiny", alias, "2")
        world.settle()
        assert world.champion() == "1"
        world.registry.set_alias("tiny", "champion", "1")
        world.settle()
    assert world.registry.aliases("tiny") == {"champion": "1"}
    assert {found.finding.reason for found in world.journal.findings("tiny")} == {"DigestMismatch"}
    assert all(v.version == "1" for document in world.cluster.written for v in document.variants)


def test_a_version_that_no_server_can_load_is_given_up(world: World, bundles: dict[str, tuple[Path, str]]) -> None:
    serve_first(world)
    digest = bundles["2"][1]
    world.cluster.cannot_load["2"] = VersionStatus(digest, "failed", "GoldenMismatch", "3 of 8 differ")
    world.registry.set_alias("tiny", "challenger", "2")
    world.settle()
    assert (world.champion(), world.registry.aliases("tiny")) == ("1", {"champion": "1"})
    assert [d.decision.action for d in world.journal.decisions("tiny")] == ["abort"]


def test_a_registry_that_is_down_leaves_everything_and_one_that_comes_back_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_first(world)
    world.registry.set_alias("tiny", "champion", "2")

    def down(name: str) -> dict[str, str]:
        raise Unavailable("MLflow does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(world.registry, "aliases", down)
        world.settle()
        assert world.champion() == "1"
    world.settle()
    assert world.champion() == "2"


def test_an_empty_registry_removes_nothing(world: World) -> None:
    serve_first(world)
    world.registry = MemoryRegistry()
    world.settle()
    assert (world.champion(), len(world.cluster.servers())) == ("1", 1)


WRITES = (
    ("journal", "swap"), ("journal", "record_decision"), ("journal", "record_findings"), ("journal", "mark_executed"),
    ("registry", "set_alias"), ("registry", "delete_alias"), ("registry", "download"),
    ("cluster", "write_document"), ("cluster", "apply_server"),
)  # fmt: skip


def kill_at(world: World, nth: int, *, after: bool, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Arm the nth write of the controller to kill it; True once it has."""
    state = {"left": nth, "fired": False}

    def armed(real: Callable[..., object]) -> Callable[..., object]:
        def write(*args: object, **kwargs: object) -> object:
            if state["fired"]:
                return real(*args, **kwargs)
            state["left"] -= 1
            if state["left"] >= 0:
                return real(*args, **kwargs)
            state["fired"] = True
            if after:
                real(*args, **kwargs)
            raise Killed

        return write

    for owner, name in WRITES:
        monkeypatch.setattr(getattr(world, owner), name, armed(getattr(getattr(world, owner), name)))
    try:
        story(world)
    except Killed:
        story(world)
    return bool(state["fired"])


def story(world: World) -> None:
    """Told again from the start after a crash, as a restarted controller and impatient people would."""
    aliases = world.registry._aliases.setdefault("tiny", {})
    if not aliases:
        aliases["champion"] = "1"
    world.settle()
    if aliases.get("champion") == "1" and "challenger" not in aliases:
        aliases["challenger"] = "2"
    for hour in (0, 2, 4):
        world.settle()
        if world.champion() == "1":
            world.serve(T0_US + hour * HOUR_US, T0_US + (hour + 2) * HOUR_US)
    world.settle()


def test_a_controller_killed_at_any_write_ends_where_an_unharmed_one_does(
    tmp_path: Path, bundles: dict[str, tuple[Path, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = World(tmp_path / "reference", bundles)
    story(reference)
    expected = reference.end_state()
    assert expected[0] == "2"
    kills = 0
    for after in (False, True):
        for nth in range(60):
            folder = tmp_path / f"{nth}-{after}"
            world = World(folder, bundles)
            with monkeypatch.context() as patched:
                fired = kill_at(world, nth, after=after, monkeypatch=patched)
            if not fired:
                break
            kills += 1
            got = world.end_state()
            assert (got[:5], got[6]) == (expected[:5], expected[6]), f"killed {'after' if after else 'before'} {nth}"
            assert [state for _, state, _ in got[5]] == ["executed"]
            world.journal.verify_chain()
            world.journal.close()
            shutil.rmtree(folder)
    assert kills >= 20


def test_versions_are_told_by_their_digest_tag(world: World) -> None:
    serve_first(world)
    versions: list[Version] = world.registry._versions["tiny"]
    versions[1] = Version("tiny", "2", versions[1].digest, "run", {}, 0)
    world.registry.set_alias("tiny", "champion", "2")
    world.settle()
    assert world.champion() == "1"
    (found,) = world.journal.findings("tiny")
    assert "no digest that was registered with it" in found.finding.message
