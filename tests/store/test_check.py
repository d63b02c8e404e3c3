"""fsck: every kind of damage is found, named and priced; repair touches only what can be computed again."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from holdfast_server import maintenance
from holdfast_server.store.check import check_integrity
from holdfast_server.store.store import Store
from tests.store.helpers import append, checkpoint, session


@dataclass
class Whole:
    """A sound data directory: session s of two entries, the first with a picture; checkpoint c of a page."""

    folder: Path
    page: str
    media: str

    def file(self, digest: str) -> Path:
        return self.folder / "blobs" / digest[:2] / digest


@pytest.fixture
async def whole(tmp_path: Path) -> Whole:
    folder = tmp_path / "data"
    store = await Store.open(folder)
    await store.catalog.create_session(session())
    async with store.writing():
        media = await store.put_media("ann", b"picture" * 99)
        await append(store.catalog, b"one", media=[media])
        record = await append(store.catalog, b"two")
        page = await store.put_page("ann", os.urandom(700))
        made = replace(checkpoint("c", record.head), page_count=1)
        await store.catalog.create_checkpoint(made, manifest=b"manifest", pages=[page.ref.digest])
    await store.collect()
    assert await check_integrity(store) == []
    await store.close()
    return Whole(folder, page.ref.digest, media)


def run(command: str, folder: Path, *arguments: str) -> Result:
    app = typer.Typer()
    app.command("fsck")(maintenance.fsck)
    app.command("gc")(maintenance.gc)
    return CliRunner().invoke(app, [command, "--data-dir", str(folder), *arguments])


def sql(folder: Path, statement: str) -> None:
    connection = sqlite3.connect(folder / "catalog.sqlite3")
    connection.execute("pragma foreign_keys = off")
    connection.execute(statement)
    connection.commit()
    connection.close()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_whole_directory_is_clean(whole: Whole) -> None:
    result = run("fsck", whole.folder, "--read-data", "100%")
    assert result.exit_code == 0, result.output
    assert result.output == "2 blobs, 2 read, 0 problems, 0 orphans, 0 files deleted\n"


FILE_DAMAGE: list[tuple[str, Callable[[Path], object], bool, int, str]] = [
    ("page", Path.unlink, False, 3, "checkpoint c"),
    ("page", lambda path: os.truncate(path, 99), False, 3, "checkpoint c"),
    ("page", lambda path: os.truncate(path, 3), False, 3, "checkpoint c"),
    ("page", flip, True, 3, "checkpoint c"),
    ("media", Path.unlink, False, 4, "checkpoint c, session s"),
    ("media", flip, True, 4, "checkpoint c, session s"),
    ("media", lambda path: os.truncate(path, 3), True, 4, "checkpoint c, session s"),
]


@pytest.mark.parametrize(("kind", "damage", "read", "status", "names"), FILE_DAMAGE)
def test_damaged_files_are_found_and_named(
    whole: Whole, kind: str, damage: Callable[[Path], object], read: bool, status: int, names: str
) -> None:
    digest = whole.page if kind == "page" else whole.media
    damage(whole.file(digest))
    result = run("fsck", whole.folder, "--read-data", "100%" if read else "0%")
    assert result.exit_code == status
    line = result.output.splitlines()[0]
    assert line.startswith("time: page" if kind == "page" else "data: media")
    assert digest in line
    assert line.endswith(names)


@pytest.mark.parametrize(
    ("statement", "status", "words"),
    [
        ("update entries set payload = zeroblob(1) where id = 1", 4, "altered: checkpoint c, session s"),
        ("update entries set chain = zeroblob(32) where revision = 2", 4, "entry 2 was altered"),
        ("update entries set revision = 9 where revision = 2", 4, "out of order"),
        ("delete from entries where revision = 1", 4, "lost the entry before it"),
        ("delete from entries where revision = 2", 4, "the journal is missing: session s"),
        ("update sessions set revision = 1", 4, "the journal is missing: session s"),
        ("delete from owners", 4, "without a key"),
        ("update checkpoints set manifest = x'00'", 3, "a manifest was altered: checkpoint c"),
        ("delete from checkpoint_pages", 3, "0 pages are counted, not 1: checkpoint c"),
        ("insert into entries select 99, owner, null, 1, chain, payload from entries where revision = 1", 0,
         "entry number 99 is kept for nobody"),
    ],
)  # fmt: skip
def test_damage_in_the_catalog_is_found_and_named(
    whole: Whole, statement: str, status: int, words: str
) -> None:
    sql(whole.folder, statement)
    result = run("fsck", whole.folder)
    assert words in result.output
    assert result.exit_code == status


def test_a_destroyed_catalog_is_lost_data(whole: Whole) -> None:
    (whole.folder / "catalog.sqlite3").write_bytes(b"not a database" * 999)
    result = run("fsck", whole.folder)
    assert (result.exit_code, result.output.splitlines()[0]) == (
        4,
        f"data: cannot open the catalog {whole.folder / 'catalog.sqlite3'}: file is not a database",
    )


def test_a_broken_catalog_page_is_lost_data_and_stops_a_repair(whole: Whole) -> None:
    path = whole.folder / "catalog.sqlite3"
    data = bytearray(path.read_bytes())
    for page in range(4, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = os.urandom(64)
    path.write_bytes(data)
    whole.file("0" * 64).write_bytes(b"an orphan, or not")
    result = run("fsck", whole.folder, "--repair")
    assert result.exit_code == 4, result.output
    assert whole.file("0" * 64).exists()


def test_repair_deletes_orphans_and_damaged_pages_only(whole: Whole) -> None:
    orphan = "0" * 64
    flip(whole.file(whole.page))
    flip(whole.file(whole.media))
    shutil.copy(whole.file(whole.media), whole.file(orphan))
    before = whole.file(whole.media).read_bytes()
    found = run("fsck", whole.folder, "--read-data", "100")
    assert f"orphan: blob {orphan}" in found.output
    assert whole.file(orphan).exists()
    result = run("fsck", whole.folder, "--read-data", "100", "--repair", "--json")
    facts = json.loads(result.output)
    assert (result.exit_code, facts["orphans"], facts["deleted"]) == (4, [orphan], 2)
    assert not whole.file(whole.page).exists()
    assert whole.file(whole.media).read_bytes() == before
    assert "is missing" in run("fsck", whole.folder).output


def test_an_orphan_is_no_damage(whole: Whole) -> None:
    whole.file("0" * 64).write_bytes(b"left by a crash")
    assert run("fsck", whole.folder).exit_code == 0


def test_the_sample_depends_on_the_seed_alone(whole: Whole) -> None:
    def read(seed: str) -> int:
        found = run("fsck", whole.folder, "--read-data", "50%", "--seed", seed, "--json")
        return int(json.loads(found.output)["blobs_read"])

    counts = [read(str(seed)) for seed in range(12)]
    assert counts == [read(str(seed)) for seed in range(12)]
    assert len(set(counts)) > 1


async def test_a_running_server_is_told_of_in_one_line(whole: Whole) -> None:
    store = await Store.open(whole.folder)
    for command in ("fsck", "gc"):
        result = await asyncio.to_thread(run, command, whole.folder)
        assert result.exit_code == 1
        assert "stop it first" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    await store.close()


def test_what_is_no_data_directory_is_not_made_one(tmp_path: Path) -> None:
    for command in ("fsck", "gc"):
        assert run(command, tmp_path / "absent").exit_code == 1
    assert not (tmp_path / "absent").exists()
    assert run("fsck", tmp_path, "--read-data", "101%").exit_code == 1


def test_gc_tells_and_then_deletes(whole: Whole) -> None:
    whole.file("0" * 64).write_bytes(b"left by a crash")
    sql(whole.folder, "update sessions set ttl = 1, expires = 1")
    sql(whole.folder, "update checkpoints set expires = 1")
    expected = {"sessions": 1, "checkpoints": 1, "blobs": 3}
    for _ in range(2):
        dry = json.loads(run("gc", whole.folder, "--dry-run", "--json").output)
        assert dry == expected | {"dry_run": True}
    assert run("gc", whole.folder).output == "deleted 1 sessions, 1 checkpoints, 3 blobs\n"
    assert run("fsck", whole.folder).output.startswith("0 blobs, 0 read, 0 problems, 0 orphans")


def test_gc_spares_what_is_pinned_or_has_time(whole: Whole) -> None:
    sql(whole.folder, f"update sessions set ttl = 1, expires = {1 << 62}")
    sql(whole.folder, "update checkpoints set expires = 1, pinned = 1")
    assert run("gc", whole.folder).output == "deleted 0 sessions, 0 checkpoints, 0 blobs\n"
