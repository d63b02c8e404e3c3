"""`holdfast fsck` and `holdfast gc`: a data directory checked and cleaned while no server runs on it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from holdfast_server import config
from holdfast_server.errors import HoldfastError, StartupError
from holdfast_server.store import check, data_dir
from holdfast_server.store.catalog import Cost, Problem
from holdfast_server.store.check import Report
from holdfast_server.store.damage import CatalogDamaged
from holdfast_server.store.sql_catalog import SqlCatalog
from holdfast_server.store.store import Store

T = TypeVar("T")
_FAILED = 1
_DEFAULT: Path = config.Settings.model_fields["data_dir"].default
_DataDir = Annotated[
    Path, typer.Option(*config.flags("data_dir"), envvar="HOLDFAST_DATA_DIR", help="The data directory.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def fsck(
    data_dir: _DataDir = _DEFAULT,
    read_data: Annotated[
        str, typer.Option(metavar="N%", help="Share of the pages and media to read and verify.")
    ] = "0%",
    seed: Annotated[str, typer.Option(help="Chooses the sample that --read-data reads.")] = "",
    repair: Annotated[
        bool, typer.Option("--repair", help="Delete orphans and damaged pages; never journals or media.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Check a data directory while no server runs on it.

    Exit status: 0 clean; 1 could not run; 3 damage that costs only time, since
    pages are computed again; 4 damage to journals or media.
    """
    try:
        share = _share(read_data)
        report, repaired = _run(_fsck(data_dir, share, seed, repair=repair))
    except CatalogDamaged as error:
        report, repaired = Report([Problem(Cost.DATA, str(error))]), 0
    _print_report(report, repaired, as_json=as_json)
    raise typer.Exit(int(report.cost))


def gc(
    data_dir: _DataDir = _DEFAULT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    as_json: _Json = False,
) -> None:
    """Delete what has expired and what nothing needs, while no server runs.

    Exit status: 0 done; 1 could not run.
    """
    try:
        facts = _run(_gc(data_dir, dry=dry_run))
    except CatalogDamaged as error:
        _refuse(f"{error}; run holdfast fsck")
    if as_json:
        print(json.dumps(facts | {"dry_run": dry_run}))  # noqa: T201
        return
    verb = "would delete" if dry_run else "deleted"
    print(f"{verb} {facts['sessions']} sessions, {facts['checkpoints']} checkpoints, {facts['blobs']} blobs")  # noqa: T201


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except CatalogDamaged:
        raise
    except (StartupError, HoldfastError) as error:
        _refuse(str(error))


def _refuse(message: str) -> NoReturn:
    print(f"holdfast: error: {message}", file=sys.stderr)  # noqa: T201
    raise typer.Exit(_FAILED)


def _share(text: str) -> float:
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        _refuse(f"--read-data takes 0% to 100%, not {text!r}")
    return percent / 100


@asynccontextmanager
async def _opened(folder: Path) -> AsyncIterator[tuple[Store, SqlCatalog]]:
    if not (folder / data_dir.CATALOG).is_file():
        raise StartupError(f"{folder} is no data directory of holdfast")
    store = await Store.open(folder)
    try:
        assert isinstance(store.catalog, SqlCatalog)
        yield store, store.catalog
    finally:
        await store.close()


async def _fsck(folder: Path, share: float, seed: str, *, repair: bool) -> tuple[Report, int]:
    async with _opened(folder) as (store, catalog):
        problems = [Problem(Cost.DATA, f"catalog: {finding}") for finding in await catalog.integrity()]
        if problems:  # what such a catalog says of blobs is no ground to delete any
            return Report(problems), 0
        report = await check.examine(store, share=share, seed=seed)
        return report, await check.repair(store, report) if repair else 0


async def _gc(folder: Path, *, dry: bool) -> dict[str, int]:
    async with _opened(folder) as (store, catalog):
        orphans = (await check.examine(store)).orphans if dry else []
        doomed = await catalog.expire(time.time_ns(), dry=dry)
        loose = len({*doomed.blobs, *orphans}) if dry else await store.collect()
        return {"sessions": doomed.sessions, "checkpoints": doomed.checkpoints, "blobs": loose}


def _print_report(report: Report, repaired: int, *, as_json: bool) -> None:
    if as_json:
        problems = [{"cost": problem.cost.name.lower(), "text": problem.text} for problem in report.problems]
        facts = {"blobs": report.blobs, "blobs_read": report.blobs_read, "deleted": repaired}
        print(json.dumps({"problems": problems, "orphans": report.orphans, **facts}))  # noqa: T201
        return
    for problem in report.problems:
        print(f"{problem.cost.name.lower()}: {problem.text}")  # noqa: T201
    for name in report.orphans:
        print(f"orphan: blob {name}")  # noqa: T201
    summary = f"{report.blobs} blobs, {report.blobs_read} read, {len(report.problems)} problems"
    print(f"{summary}, {len(report.orphans)} orphans, {repaired} files deleted")  # noqa: T201
