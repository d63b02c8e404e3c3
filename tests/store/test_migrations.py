"""Older catalogs are migrated as a whole or not at all; newer ones are refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Connection

from holdfast_server.errors import StartupError
from holdfast_server.store import migrations
from holdfast_server.store.sql_catalog import SqlCatalog
from tests.store.helpers import grown


def add_moods(connection: Connection) -> None:
    connection.exec_driver_sql("create table moods (session_id varchar(63), mood text not null)")
    connection.exec_driver_sql("insert into moods select session_id, 'calm' from sessions")


def rename_moods(connection: Connection) -> None:
    connection.exec_driver_sql("alter table moods rename to tempers")


def broken(connection: Connection) -> None:
    connection.exec_driver_sql("drop table moods")
    connection.exec_driver_sql("insert into nowhere values (1)")


@pytest.fixture
async def older(tmp_path: Path) -> Path:
    """A catalog of the first version, with a session of one entry."""
    path = tmp_path / "catalog.sqlite3"
    catalog = await SqlCatalog.open(path)
    await grown(catalog, b"one")
    await catalog.close()
    return path


def asked(path: Path, question: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(question).fetchall()
    finally:
        connection.close()


async def test_an_older_catalog_is_migrated_step_by_step(
    older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "STEPS", (add_moods, rename_moods))
    catalog = await SqlCatalog.open(older)
    record = await catalog.get_session("ann", "s")
    assert [entry.payload for entry in await catalog.journal("ann", record.head)] == [b"one"]
    await catalog.close()
    assert asked(older, "select * from tempers") == [("s", "calm")]
    assert asked(older, "select schema_version, epoch from store") == [(3, 2)]
    await (await SqlCatalog.open(older)).close()  # no step runs twice
    assert asked(older, "select schema_version, epoch from store") == [(3, 3)]


async def test_only_the_missing_steps_run(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "STEPS", (add_moods,))
    await (await SqlCatalog.open(older)).close()
    monkeypatch.setattr(migrations, "STEPS", (broken, rename_moods))
    await (await SqlCatalog.open(older)).close()
    assert asked(older, "select * from tempers") == [("s", "calm")]


async def test_a_step_that_fails_undoes_them_all(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "STEPS", (add_moods, broken))
        with pytest.raises(StartupError, match="cannot open the catalog"):
            await SqlCatalog.open(older)
    assert asked(older, "select schema_version, epoch from store") == [(1, 1)]
    assert asked(older, "select name from sqlite_master where name = 'moods'") == []
    await (await SqlCatalog.open(older)).close()


async def test_a_new_catalog_runs_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "STEPS", (broken,))
    path = tmp_path / "catalog.sqlite3"
    await (await SqlCatalog.open(path)).close()
    assert asked(path, "select schema_version from store") == [(2,)]


@pytest.mark.parametrize(("version", "words"), [(2, "newer holdfast"), (0, "no released holdfast")])
async def test_other_versions_are_refused_and_left_alone(older: Path, version: int, words: str) -> None:
    connection = sqlite3.connect(older)
    connection.execute("update store set schema_version = ?", (version,))
    connection.commit()
    connection.close()
    with pytest.raises(StartupError, match=words):
        await SqlCatalog.open(older)
    assert asked(older, "select schema_version, epoch from store") == [(version, 1)]
