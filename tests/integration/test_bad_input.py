"""Whatever goes wrong outside: a clear error, nothing half-written, and the same command works afterwards.

Every case runs the real command line. ``told`` holds each error to the house form: exit code 1 (2 for usage), where,
what was got, what is allowed or what to run, and no traceback.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from servers.mlflow import free_port
from tidewheel.adapters.child_processes import is_alive
from tidewheel.adapters.file_event_log import FileEventLog
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.platform_state import PlatformState, read_platform
from unit.features.samples import FEATURES, MINUTE_US, SPEC, START_US, labels_table, payments_table
from waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

TRAINABLE = SPEC.replace("{window: 1d}", "{window: 3d, holdout: 1d, params: {n_estimators: 10}}") + "tier: 1\n"
AS_OF = "2018-04-07"
N_EVENTS = 6 * 288
_FLUX = (".lock", "-wal", "-shm", ".log")  # locks, SQLite's own files and logs come and go


# --- what a person does and sees ---------------------------------------------------------------------------------


def tidewheel(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tidewheel", *map(str, arguments)]
    env = {**os.environ, **environment}
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, env=env)


def works(*arguments: object) -> str:
    done = tidewheel(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def told(*arguments: object, code: int = 1) -> str:
    """The error of a command that must fail, on one line."""
    done = tidewheel(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    return " ".join(done.stderr.split())


def contents(*folders: Path) -> dict[str, bytes]:
    """Every file under ``folders`` that is a fact, also hidden and temporary ones. A home's own keys are made at the
    first need and stay."""
    return {
        str(path): path.read_bytes()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(_FLUX) and "keys" not in path.parts
    }


# --- good data, from which each fault is made --------------------------------------------------------------------


def events(n: int, start_us: int = START_US, prefix: str = "p") -> list[dict[str, Any]]:
    draw = random.Random(7)
    rows = []
    for i in range(n):
        amount = draw.random() * 200
        rows.append(
            {"card": f"c{i % 7}", "shop": i % 5, "t": start_us + i * 5 * MINUTE_US, "id": f"{prefix}{i}",
             "amount": amount, "channel": "online", "items": 2, "is_fraud": amount > 150}
        )  # fmt: skip
    return rows


def payments(n: int = 50, **columns: pa.Array) -> pa.Table:
    table = payments_table(events(n))
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    return table


def parquet(path: Path, table: pa.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def project_in(folder: Path, spec: str = SPEC, features: str = FEATURES) -> Path:
    folder.mkdir(parents=True)
    (folder / "project.yaml").write_text(spec)
    (folder / "features.py").write_text(features)
    return folder


def trainable_in(folder: Path, labels: pa.Table | None = None) -> Path:
    """A project whose lake holds enough to train as of AS_OF."""
    rows = events(N_EVENTS)
    parquet(LocalHome.of(folder).lake / "payments" / "history.parquet", payments_table(rows))
    parquet(LocalHome.of(folder).lake / "labels" / "history.parquet", labels or labels_table(rows))
    (folder / "project.yaml").write_text(TRAINABLE)
    (folder / "features.py").write_text(FEATURES)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return project_in(tmp_path / "sample")


# --- the project itself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "features", "says"),
    [
        pytest.param(
            SPEC.replace(": string}", ": strng}", 1).replace("delay: 2h", "delay: soon").replace("owner:", "ownr:"),
            FEATURES,
            [
                "4 problems in the project", "project.yaml:5: entities.card.type: input should be 'int64' or 'string' "
                "(got 'strng')", "project.yaml:14: label.delay: must be a number with a unit", "(got 'soon')",
                "ownr: unknown field (got 'tests'); allowed are name,", "owner: required field is missing",
            ],
            id="several mistakes in project.yaml",
        ),
        pytest.param(
            SPEC.replace("request: payments", "request: paymnts"), FEATURES,
            ["project.yaml:13: request:", "'paymnts'", "payments, labels, profiles"], id="an unknown source as request",
        ),
        pytest.param("name: [x\n", FEATURES, ["project.yaml:", "not valid YAML"], id="no YAML"),
        pytest.param("", FEATURES, ["project.yaml:1: must be a mapping of fields"], id="an empty project.yaml"),
        pytest.param(
            SPEC, FEATURES.replace('sum("amount")', 'sum("amont")').replace('by="shop"', 'by="shp"')
            .replace("usual_1h)", "usual_2h)"),
            [
                "4 problems in the project",
                "features.py:6: card.total: unknown column 'amont'; 'payments' declares amount, channel, items",
                "features.py:10: others: unknown entity 'shp'; declared are card, shop",
                "features.py:17: is_dear: unknown argument 'usual_2h'; an argument is a request field or a feature",
            ],
            id="several mistakes in features.py",
        ),
        pytest.param(SPEC, "def f(:\n", ["features.py:1: not valid Python: invalid syntax"], id="a syntax error"),
        pytest.param(
            SPEC, FEATURES + "\n1 / 0\n", ["features.py:21: ZeroDivisionError: division by zero"], id="an exception"
        ),
        pytest.param(
            SPEC, FEATURES + "\nraise SystemExit(0)\n", ["features.py:21: SystemExit: 0"], id="an exit of the program"
        ),
        pytest.param(SPEC, "", ["features.py: declares no feature; declare at least one"], id="no feature"),
    ],
)  # fmt: skip
def test_validate_names_every_mistake_with_its_line(project: Path, spec: str, features: str, says: list[str]) -> None:
    (project / "project.yaml").write_text(spec)
    (project / "features.py").write_text(features)
    error = told("validate", project)
    assert [text for text in says if text not in error] == [], error
    assert not (project / ".tidewheel").exists()


def test_a_folder_without_a_project_is_told_how_to_start_one(tmp_path: Path) -> None:
    assert "project.yaml: no such file; run 'tidewheel new NAME'" in told("validate", tmp_path)


# --- event files -------------------------------------------------------------------------------------------------


def damaged_page(path: Path) -> None:
    data = bytearray(parquet(path, payments(2000)).read_bytes())
    data[100:600] = b"\xff" * 500
    path.write_bytes(data)


def truncated(path: Path) -> None:
    path.write_bytes(parquet(path, payments()).read_bytes()[:-100])


def no_zone(path: Path) -> None:
    parquet(path, payments(at=payments()["at"].cast(pa.timestamp("us"))))


FILE_FAULTS = [
    pytest.param(truncated, ["cannot be read", "a Parquet or CSV file is needed"], id="a truncated file"),
    pytest.param(damaged_page, ["cannot be read", "a Parquet or CSV file is needed"], id="a damaged page"),
    pytest.param(
        lambda path: path.write_text("hello\n" * 100), ["cannot be read", "a Parquet or CSV file is needed"],
        id="text named parquet",
    ),
    pytest.param(lambda path: path.write_bytes(b""), ["is empty; a Parquet or CSV file is needed"], id="zero bytes"),
    pytest.param(lambda path: parquet(path, payments(0)), ["has no rows; "], id="no rows"),
    pytest.param(
        no_zone, ["column 'at' has no time zone; declare one for the source", "'timezone: UTC'"], id="no time zone"
    ),
    pytest.param(
        lambda path: parquet(path, payments(amount=pa.array(["x"] * 50))), ["column 'amount' must be", "(got string)"],
        id="text for a number",
    ),
    pytest.param(
        lambda path: parquet(path, payments(at=pa.array(range(50)))), ["column 'at' must be a time (got int64)"],
        id="a number for a time",
    ),
    pytest.param(
        lambda path: parquet(path, payments().drop_columns(["shop", "at"])),
        ["column(s) shop, at are missing (got card, payment, amount, channel, items, points)"], id="missing columns",
    ),
]  # fmt: skip
FOLDER_FAULTS = [
    pytest.param(lambda path: path.mkdir(), ["has no rows", "Parquet or CSV file"], id="a folder without files"),
    pytest.param(lambda path: None, ["no such file"], id="no file"),
]
Fault = Callable[[Path], Any]


@pytest.mark.parametrize(("fault", "says"), [*FILE_FAULTS, *FOLDER_FAULTS])
def test_an_event_file_with_a_fault_sends_nothing_of_any_file(
    project: Path, tmp_path: Path, fault: Fault, says: list[str]
) -> None:
    labels, path = parquet(tmp_path / "labels.parquet", labels_table(events(50))), tmp_path / "day.parquet"
    fault(path)
    error = told("ingest", project, "--source", f"labels={labels}", "--source", f"payments={path}")
    assert [text for text in [str(path), *says] if text not in error] == [], error
    assert contents(LocalHome.of(project).root) == {}


def test_a_mended_event_file_passes_by_the_same_command(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "day.parquet"
    command = ("ingest", project, "--source", f"payments={path}")
    truncated(path)
    told(*command)
    parquet(path, payments())
    works(*command)
    assert FileEventLog(LocalHome.of(project).event_log).end("payments", 0) == 50


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        pytest.param(
            ["paymnts={good}"], "unknown source 'paymnts'; declared are payments, labels, profiles", id="a typo"
        ),
        pytest.param(["{good}"], "--source: must be NAME=PATH (got '", id="no name"),
        pytest.param(["payments="], "--source: must be NAME=PATH (got 'payments=')", id="no path"),
        pytest.param(["payments={good}"] * 2, "--source: 'payments' is given twice", id="one source twice"),
    ],
)
def test_a_source_argument_that_cannot_be_used_is_refused(
    project: Path, tmp_path: Path, sources: list[str], says: str
) -> None:
    good = parquet(tmp_path / "good.parquet", payments())
    options = [word for source in sources for word in ("--source", source.format(good=good))]
    assert says in told("ingest", project, *options)
    assert contents(LocalHome.of(project).root) == {}


def test_rows_with_missing_keys_are_counted_and_kept_with_the_reason(project: Path, tmp_path: Path) -> None:
    cards = payments()["card"].to_pylist()
    path = parquet(tmp_path / "day.parquet", payments(card=pa.array([None, None, *cards[2:]])))
    for _ in range(2):  # sent again, they are not set aside twice
        facts = json.loads(works("ingest", project, "--source", f"payments={path}", "--output", "json"))["sources"]
        assert {name: facts["payments"][name] for name in ("n_rows", "n_accepted", "n_rejected", "reasons")} == {
            "n_rows": 50, "n_accepted": 48, "n_rejected": 2, "reasons": {"card is missing": 2},
        }  # fmt: skip
    (aside,) = (LocalHome.of(project).lake / "_rejected" / "payments").glob("*.parquet")
    kept = pq.ParquetFile(aside).read()
    assert kept["payment"].to_pylist() == ["p0", "p1"]
    assert kept["reason"].to_pylist() == ["card is missing"] * 2


# --- files of rows -----------------------------------------------------------------------------------------------

NO_KEY = pytest.param(
    lambda path: parquet(path, payments(card=pa.array([None, *payments()["card"].to_pylist()[1:]]))),
    ["1 of 50 row(s) cannot be used; the first: card is missing"], id="a row without a key",
)  # fmt: skip


@pytest.mark.parametrize(("fault", "says"), [FILE_FAULTS[1], FILE_FAULTS[4], FILE_FAULTS[5], NO_KEY])
def test_rows_with_a_fault_compute_nothing_and_leave_the_old_output(
    project: Path, tmp_path: Path, fault: Fault, says: list[str]
) -> None:
    rows, out = tmp_path / "rows.parquet", tmp_path / "out.parquet"
    fault(rows)
    out.write_bytes(b"old")
    error = told("features", "compute", project, "--rows", rows, "--output", out)
    assert [text for text in [str(rows), *says] if text not in error] == [], error
    assert out.read_bytes() == b"old"
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize(
    ("engine", "fault", "says"),
    [
        pytest.param("duckdb", *FILE_FAULTS[5].values, id="no time zone by duckdb"),
        pytest.param("stream", *FILE_FAULTS[1].values, id="a damaged page by stream"),
        pytest.param("stream", *FILE_FAULTS[4].values, id="no rows by stream"),
        pytest.param("duckdb", *FOLDER_FAULTS[0].values, id="a folder without files by duckdb"),
    ],
)
def test_a_source_with_a_fault_computes_nothing(
    project: Path, tmp_path: Path, engine: str, fault: Fault, says: list[str]
) -> None:
    rows, source = parquet(tmp_path / "rows.parquet", payments()), tmp_path / "day.parquet"
    fault(source)
    command = ("features", "compute", project, "--rows", rows, "--output", tmp_path / "out.parquet")
    error = told(*command, "--engine", engine, "--source", f"payments={source}")
    assert [text for text in [str(source), *says] if text not in error] == [], error
    assert not (tmp_path / "out.parquet").exists()


def test_rows_that_do_not_exist_are_a_usage_error(project: Path, tmp_path: Path) -> None:
    compute = ("features", "compute", project, "--rows", tmp_path / "no.parquet", "--output", tmp_path / "out.parquet")
    assert f"'--rows': File '{tmp_path / 'no.parquet'}' does not exist" in told(*compute, code=2)


@pytest.mark.parametrize(
    ("fault", "says"),
    [FILE_FAULTS[1], FILE_FAULTS[4], FILE_FAULTS[5], FILE_FAULTS[6], FOLDER_FAULTS[1],
     pytest.param(lambda path: parquet(path, payments().drop_columns(["shop"])),
                  ["column(s) shop are missing (got card,"], id="no key column")],
)  # fmt: skip
def test_rows_with_a_fault_are_not_asked_about(project: Path, tmp_path: Path, fault: Fault, says: list[str]) -> None:
    rows = tmp_path / "rows.parquet"
    fault(rows)
    error = told("predict", project, "--rows", rows, "--url", "http://127.0.0.1:9")
    assert [text for text in [str(rows), *says] if text not in error] == [], error


@pytest.mark.parametrize(
    ("request_text", "url", "says"),
    [
        pytest.param("{x", "http://127.0.0.1:9", "--request: not valid JSON", id="no JSON"),
        pytest.param('{"z": 1}', "http://127.0.0.1:9", "unknown column(s) z; allowed are card, shop", id="a typo"),
        pytest.param('{"card": "a"}', "nonsense", "--url: must be http://HOST:PORT (got 'nonsense')", id="no URL"),
        pytest.param('{"card": "a"}', "http://127.0.0.1:9", "http://127.0.0.1:9: the model server does not", id="down"),
    ],
)
def test_a_request_that_cannot_be_asked_says_why(project: Path, request_text: str, url: str, says: str) -> None:
    assert says in told("predict", project, "--request", request_text, "--url", url)


def test_a_server_that_is_down_is_named_with_the_count_of_what_failed(project: Path, tmp_path: Path) -> None:
    rows = parquet(tmp_path / "rows.parquet", payments())
    error = told("predict", project, "--rows", rows, "--url", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9: 50 of 50 requests failed" in error
    assert "see 'tidewheel status'" in error


# --- neighbours that are not there -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "says"),
    [
        pytest.param(["train", "{p}", "--as-of", AS_OF], "the platform is not running; run 'tidewheel up'", id="train"),
        pytest.param(["promote", "{p}", "1", "--reason", "x"], "is not running; run 'tidewheel up'", id="promote"),
        pytest.param(["rollback", "{p}", "--reason", "x"], "is not running; run 'tidewheel up'", id="rollback"),
        pytest.param(["predict", "{p}", "--request", "{{}}"], "is not running; run 'tidewheel up'", id="predict"),
        pytest.param(
            ["approve", "{p}", "retrain-x", "--reason", "y"],
            "decision 'retrain-x': no such decision; 'tidewheel status' lists those that wait", id="approve",
        ),
        pytest.param(
            ["refuse", "{p}", "retrain-x", "--reason", "y"], "decision 'retrain-x': no such decision", id="refuse"
        ),
    ],
)  # fmt: skip
def test_without_a_platform_a_command_says_what_to_run(project: Path, command: list[str], says: str) -> None:
    error = told(*(word.format(p=project) for word in command))
    assert says in error
    assert set(contents(LocalHome.of(project).root)) <= {str(LocalHome.of(project).root / "journal.db")}


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["train", "--as-of", AS_OF], id="train"),
        pytest.param(["promote", "1", "--reason", "x"], id="promote"),
        pytest.param(["rollback", "--to", "1", "--reason", "x"], id="rollback"),
    ],
)
def test_an_mlflow_that_is_down_is_named_by_its_url(project: Path, command: list[str]) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    error = told(command[0], project, *command[1:], "--tracking-uri", uri)
    assert f"{uri}: MLflow does not answer" in error
    assert "run 'tidewheel up'" in error


# --- training ----------------------------------------------------------------------------------------------------


def labels_of(rows: list[dict[str, Any]], **changes: Any) -> pa.Table:
    return labels_table([{**row, **changes} for row in rows])


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        pytest.param(
            labels_of(events(N_EVENTS)[-300:]), "0 mature labelled rows; at least 200 are needed", id="too few rows"
        ),
        pytest.param(
            labels_of(events(N_EVENTS), is_fraud=False), "labels are positive; at least 10 of each kind are needed",
            id="one class only",
        ),
    ],
)  # fmt: skip
def test_training_data_that_cannot_teach_makes_no_version(tmp_path: Path, labels: pa.Table, says: str) -> None:
    project = trainable_in(tmp_path / "sample", labels)
    before = contents(tmp_path)
    error = told("train", project, "--as-of", AS_OF, "--no-register")
    assert "training window 2018-04-02T20:00:00Z to 2018-04-05T20:00:00Z: " in error
    assert says in error
    assert "send more events and labels with 'tidewheel ingest'" in error
    assert contents(tmp_path) == before


@pytest.mark.parametrize("command", ["train", "monitor"])
def test_a_time_that_is_none_is_a_usage_error_with_an_example(project: Path, command: str) -> None:
    assert "not a time (got 'soon'); write 2018-06-04 or" in told(command, project, "--as-of", "soon", code=2)
    assert "no event has arrived yet; send some with 'tidewheel ingest' or give --as-of" in told(command, project)


# --- damaged state -----------------------------------------------------------------------------------------------


def test_a_damaged_journal_is_named_and_never_overwritten(project: Path) -> None:
    journal = LocalHome.of(project).root / "journal.db"
    works("apply", project)
    good = journal.read_bytes()
    journal.write_bytes(b"garbage" * 1000)
    for command in (
        ["status", project],
        ["approve", project, "x", "--reason", "y"],
        ["up", project],
    ):
        error = told(*command)
        assert f"{journal}: file is not a database; restore it from a backup" in error
        assert journal.read_bytes() == b"garbage" * 1000
    journal.write_bytes(good)
    assert "unchanged" in works("apply", project)


@pytest.mark.parametrize("junk", [pytest.param(b"garbage", id="no JSON"), pytest.param(b"{}", id="another object")])
def test_a_damaged_platform_file_is_named_and_down_clears_it(project: Path, junk: bytes) -> None:
    file = LocalHome.of(project).state_file
    file.parent.mkdir()
    file.write_bytes(junk)
    for command in (["promote", project, "1", "--reason", "x"], ["predict", project, "--request", "{}"]):
        error = told(*command)
        assert f"{file}: damaged" in error
        assert "run 'tidewheel down', then 'tidewheel up'" in error
    assert "not running" in works("status", project)
    works("down", project)
    assert not file.exists()


def test_a_damaged_deployment_document_is_named_and_not_believed(project: Path) -> None:
    file = LocalHome.of(project).deployments / "sample.json"
    file.parent.mkdir(parents=True)
    monitor, train = ("monitor", project, "--as-of", AS_OF), ("train", project, "--if-needed", "--as-of", AS_OF)
    for junk, command in ((b"garbage", monitor), (b"{}", train)):
        file.write_bytes(junk)
        error = told(*command)
        assert f"{file}: " in error
        assert "the controller writes it again" in error
    file.unlink()
    works(*monitor)


@contextlib.contextmanager
def stream_worker(home: LocalHome) -> Iterator[None]:
    line = [sys.executable, "-m", "tidewheel.apps.stream_worker", "--home", str(home.root)]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def test_a_damaged_online_store_is_named_and_is_filled_again_from_the_log(project: Path, tmp_path: Path) -> None:
    home, path = LocalHome.of(project), parquet(tmp_path / "day.parquet", payments())
    works("apply", project)
    home.online_db.write_bytes(b"garbage" * 1000)
    command = ("ingest", project, "--source", f"payments={path}", "--wait")
    error = told(*command)
    assert f"{home.online_db}: the online store is damaged (file is not a database)" in error
    assert "the stream worker sets it aside and fills a new one from the event log" in error
    assert FileEventLog(home.event_log).end("payments", 0) == 50  # the events themselves are safe
    with stream_worker(home):
        until(home.online_db.is_symlink)  # set aside
        works(*command)


# --- a full disk -------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for one megabyte."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a disk of its own is mounted only by root on Linux")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no disk of its own: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, leave_bytes: int) -> Path:
    filler = disk / "filler"
    filler.write_bytes(b"0" * (shutil.disk_usage(disk).free - leave_bytes))
    return filler


@pytest.mark.parametrize(
    "n_without_key", [pytest.param(0, id="the event log"), pytest.param(20_000, id="rejected rows")]
)
def test_ingest_onto_a_full_disk_sends_nothing_and_passes_with_room(
    small_disk: Path, tmp_path: Path, n_without_key: int
) -> None:
    project, table = project_in(small_disk / "sample"), payments(5000)
    if n_without_key:
        keyless = payments(n_without_key)
        keyless = keyless.set_column(0, "card", pa.nulls(n_without_key, pa.string()))
        table = pa.concat_tables([keyless, table])
    path = parquet(tmp_path / "day.parquet", table)
    filler = fill(small_disk, 40_000)
    before = contents(small_disk)
    error = told("ingest", project, "--source", f"payments={path}")
    assert f"{small_disk}" in error
    assert ".parquet: no space left" in error if n_without_key else ".arrow: no space left" in error
    assert "make room and run the command again" in error
    assert contents(small_disk) == before
    filler.unlink()
    works("ingest", project, "--source", f"payments={path}")
    assert FileEventLog(LocalHome.of(project).event_log).end("payments", 0) == 5000


def test_features_onto_a_full_disk_leave_the_old_output_and_pass_with_room(
    project: Path, small_disk: Path, tmp_path: Path
) -> None:
    rows, out = parquet(tmp_path / "rows.parquet", payments(3000)), small_disk / "out.parquet"
    out.write_bytes(b"old")
    filler = fill(small_disk, 20_000)
    before = contents(small_disk)
    command = ("features", "compute", project, "--rows", rows, "--output", out, "--source", f"payments={rows}")
    assert f"{out}: no space left on device; make room" in told(*command)
    assert contents(small_disk) == before
    filler.unlink()
    works(*command)
    assert pq.ParquetFile(out).metadata.num_rows == 3000


def test_training_onto_a_full_disk_leaves_no_bundle_and_passes_with_room(small_disk: Path) -> None:
    project = trainable_in(small_disk / "sample")
    filler = fill(small_disk, 20_000)
    before = contents(small_disk)
    command = ("train", project, "--as-of", AS_OF, "--no-register")
    error = told(*command)
    assert f"{LocalHome.of(project).bundles}" in error
    assert "no space left on device; make room and run the command again" in error
    assert contents(small_disk) == before
    filler.unlink()
    works(*command)


def test_a_project_onto_a_full_disk_is_not_begun(small_disk: Path) -> None:
    filler = fill(small_disk, 0)
    error = told("new", "other", "--into", small_disk / "other")
    assert f"{small_disk}" in error
    assert "full" in error
    assert list(small_disk.iterdir()) == [filler]
    filler.unlink()
    works("new", "other", "--into", small_disk / "other")


# --- with the platform: started once, in the order of a project's life --------------------------------------------


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    project = project_in(tmp_path_factory.mktemp("live") / "sample", TRAINABLE)
    works("up", project)
    yield project
    works("down", project)


def platform(project: Path) -> PlatformState:
    return read_platform(LocalHome.of(project))


@contextlib.contextmanager
def held(pid: int) -> Iterator[None]:
    """A process that does nothing for a while, so that what it would mend stays broken."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def compute(project: Path, rows: Path, out: Path) -> Mapping[str, list[Any]]:
    works("features", "compute", project, "--rows", rows, "--output", out)
    found: Mapping[str, list[Any]] = pq.ParquetFile(out).read().to_pydict()
    return found


def test_a_worker_killed_during_ingest_comes_back_and_finishes(live: Path, tmp_path: Path) -> None:
    rows = events(N_EVENTS)
    sources = {"payments": payments_table(rows), "labels": labels_table(rows)}
    files = [f"{name}={parquet(tmp_path / f'{name}.parquet', table)}" for name, table in sources.items()]
    worker = platform(live).processes["stream-worker"].pid
    assert worker is not None
    os.kill(worker, signal.SIGSTOP)  # it takes nothing before it dies
    line = [
        sys.executable,
        "-m",
        "tidewheel",
        "ingest",
        str(live),
        "--source",
        files[0],
        "--source",
        files[1],
        "--wait",
    ]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ingest:
        log = FileEventLog(LocalHome.of(live).event_log)
        until(lambda: log.end("labels", 0) == N_EVENTS)
        os.kill(worker, signal.SIGKILL)
        _, error = ingest.communicate(timeout=60)
    assert (ingest.returncode, error) == (0, "")
    assert not is_alive(worker)
    assert platform(live).processes["stream-worker"].pid != worker


def test_duplicate_events_count_once_and_late_ones_in_their_place(live: Path, tmp_path: Path) -> None:
    late_us = START_US + 100 * MINUTE_US + 1
    day = START_US + 7 * 24 * 60 * MINUTE_US
    sent = [{**events(1)[0], "card": "z", "t": t, "id": name} for name, t in (("z1", day), ("z2", late_us))]
    for rows in ([sent[0]], [sent[1], sent[1]], sent):
        path = parquet(tmp_path / "some.parquet", payments_table(rows))
        works("ingest", live, "--source", f"payments={path}", "--wait")
    asked = [{**sent[0], "id": f"asked{i}", "t": t} for i, t in enumerate((late_us - 1, late_us + MINUTE_US, day + 1))]
    found = compute(live, parquet(tmp_path / "rows.parquet", payments_table(asked)), tmp_path / "out.parquet")
    assert found["n_1h"] == [1, 2, 2]  # the request itself, and the one event of that hour before it


def test_a_second_up_says_that_it_runs_and_starts_nothing(live: Path) -> None:
    before = {name: process.pid for name, process in platform(live).processes.items()}
    assert "already running" in works("up", live)
    assert {name: process.pid for name, process in platform(live).processes.items()} == before


def test_a_damaged_platform_file_is_written_again_while_the_platform_runs(live: Path) -> None:
    file = LocalHome.of(live).state_file
    good = file.read_bytes()
    file.write_bytes(b"garbage")
    until(lambda: file.read_bytes() == good)
    assert "already running" in works("up", live)


def test_before_any_version_predict_promote_and_rollback_say_what_is_missing(live: Path) -> None:
    assert "no model server runs; train and promote a version first" in told("predict", live, "--request", "{}")
    assert "sample: no version 7; see 'tidewheel status'" in told("promote", live, "7", "--reason", "x")
    assert "sample: nothing serves yet, so there is nothing to roll back" in told("rollback", live, "--reason", "x")


def test_a_killed_mlflow_is_named_and_the_same_commands_pass_when_it_is_back(live: Path) -> None:
    state = platform(live)
    mlflow = state.processes["mlflow"]
    assert mlflow.pid is not None
    train = ("train", live, "--as-of", AS_OF)
    promote = ("promote", live, "1", "--no-wait", "--reason", "first")
    with held(state.pid):
        os.killpg(mlflow.pid, signal.SIGKILL)
        for command in (train, promote, ("rollback", live, "--to", "1", "--reason", "x")):
            error = told(*command)
            assert f"{state.mlflow_uri}: MLflow does not answer" in error
        assert not LocalHome.of(live).bundles.exists()
    until(lambda: (now := platform(live).processes["mlflow"]).state == "running" and now.pid != mlflow.pid)
    assert "version 1" in works(*train)
    assert "version 1" in works(*promote)
    assert "no version 9" in told("promote", live, "9", "--reason", "x")


def test_a_damaged_deployment_document_is_written_again_by_the_controller(live: Path) -> None:
    file = LocalHome.of(live).deployments / "sample.json"
    until(file.is_file)
    until(lambda: json.loads(file.read_bytes())["champion"] == "1")
    good = file.read_bytes()
    file.write_bytes(b"garbage")
    until(lambda: file.read_bytes() == good)
