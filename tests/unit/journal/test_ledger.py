"""The ledger: chain, keys, opening and migrating."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from tidewheel.clock import FixedClock
from tidewheel.errors import Conflict, ContractViolation, Unavailable
from tidewheel.journal import schema
from tidewheel.journal.chain import Entry, entry_hash
from tidewheel.journal.ledger import Journal


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'state' / 'journal.db'}"


@pytest.fixture
def journal(url: str) -> Journal:
    return Journal(url, FixedClock(1_000))


def test_an_entry_comes_back_whole(journal: Journal) -> None:
    made = journal.append("fraud", "applied", {"b": 1, "a": [2]}, actor="ada", as_of_us=5, reason="first", key="k")
    row = {
        "seq": 1, "project": "fraud", "kind": "applied", "actor": "ada", "as_of_us": 5, "recorded_at_us": 1_000,
        "reason": "first", "key": "k", "body": '{"a":[2],"b":1}', "prev_hash": "",
    }  # fmt: skip
    want = Entry(1, "fraud", "applied", {"a": [2], "b": 1}, "ada", 5, "first", "k", 1_000, "", entry_hash(row))
    assert made == want
    assert journal.entries("fraud") == (want,)
    assert journal.entries("other") == ()


def test_the_same_key_and_body_is_the_same_entry(journal: Journal) -> None:
    first = journal.append("fraud", "applied", {"a": 1}, actor="ada", key="k")
    assert journal.append("fraud", "applied", {"a": 1}, actor="bob", key="k") == first
    assert len(journal.entries("fraud")) == 1


def test_the_same_key_with_another_body_is_a_conflict(journal: Journal) -> None:
    journal.append("fraud", "applied", {"a": 1}, actor="ada", key="k")
    with pytest.raises(Conflict, match=r"fraud: ledger key 'k' is taken by entry 1 with another body"):
        journal.append("fraud", "applied", {"a": 2}, actor="ada", key="k")


def test_entries_are_found_by_kind_and_newest_first(journal: Journal) -> None:
    for number, kind in enumerate(("a", "b", "a")):
        journal.append("fraud", kind, {"n": number}, actor="ada")
    assert [entry.body["n"] for entry in journal.entries("fraud", kind="a", newest_first=True)] == [2, 0]
    assert [entry.seq for entry in journal.entries("fraud", limit=2)] == [1, 2]


def _tamper(journal: Journal, statement: str) -> None:
    with journal.write() as connection:
        connection.execute(sa.text(statement))


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        pytest.param("UPDATE ledger SET body='{}' WHERE seq=2", "ledger entry 2: was changed", id="a changed body"),
        pytest.param("UPDATE ledger SET actor='eve' WHERE seq=3", "ledger entry 3: was changed", id="a changed actor"),
        pytest.param("DELETE FROM ledger WHERE seq=2", "ledger entry 2: is missing", id="a dropped entry"),
        pytest.param("DELETE FROM ledger WHERE seq=4", "ledger entry 4: is missing at the end", id="a cut-off end"),
        pytest.param(
            "UPDATE ledger SET seq = CASE seq WHEN 2 THEN -3 WHEN 3 THEN -2 END WHERE seq IN (2,3);",
            "ledger entry 1: is missing",
            id="moved entries",
        ),
        pytest.param("UPDATE ledger SET hash='' WHERE seq=1", "ledger entry 1: was changed", id="a changed hash"),
    ],
)
def test_the_first_broken_entry_is_named(journal: Journal, statement: str, message: str) -> None:
    for number in range(4):
        journal.append("fraud", "act", {"n": number}, actor="ada")
    journal.verify_chain()
    _tamper(journal, statement)
    with pytest.raises(ContractViolation, match=message):
        journal.verify_chain()


def test_an_empty_ledger_is_whole(journal: Journal) -> None:
    journal.verify_chain()


def test_opening_again_keeps_what_was_written_and_imports_no_alembic(url: str) -> None:
    with Journal(url) as first:
        first.append("fraud", "act", {}, actor="ada")
    code = (
        "import sys; from tidewheel.journal.ledger import Journal; "
        f"j = Journal({url!r}); print(len(j.entries('fraud')), 'alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]


def test_the_migrations_make_the_tables_that_the_code_declares(journal: Journal) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with journal.read() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, schema.METADATA) == []
        assert context.get_current_revision() == schema.HEAD_REVISION


def test_the_newest_migration_is_the_one_the_fast_path_expects() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD_REVISION]


def test_a_file_that_is_no_database_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    with pytest.raises(Unavailable, match="file is not a database"):
        Journal(f"sqlite:///{path}")


def test_a_newer_schema_is_refused(url: str) -> None:
    with Journal(url) as journal:
        _tamper(journal, "UPDATE alembic_version SET version_num='9999'")
    with pytest.raises(Unavailable, match="its schema 9999 is newer than this program's 0001"):
        Journal(url)
