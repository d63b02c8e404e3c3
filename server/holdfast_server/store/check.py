"""Whether a store is whole: what `holdfast fsck` finds and repairs, and tests look at after their work.

Nothing here changes journals or media. Pages are a cache: a damaged one is
better gone, since then a restore says so at once and the next checkpoint
writes it anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from blake3 import blake3

from holdfast_server.store import pages
from holdfast_server.store.budget import BudgetedBlobs
from holdfast_server.store.catalog import Catalog, Cost, Problem, Reference
from holdfast_server.store.damage import BlobMissing, Damage, MediaCorrupt, PageCorrupt
from holdfast_server.store.digest import keyed_digest
from holdfast_server.store.store import Store


@dataclass(slots=True)
class Report:
    """What was found."""

    problems: list[Problem] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    """Blobs that nothing refers to: what a crash leaves until the next collection."""
    damaged_pages: list[str] = field(default_factory=list)
    blobs: int = 0
    blobs_read: int = 0

    @property
    def cost(self) -> Cost:
        """The worst of the problems."""
        return max((problem.cost for problem in self.problems), default=Cost.SPACE)


async def check_integrity(store: Store) -> list[str]:
    """Everything that can be seen without reading blobs: a line a problem, orphans included.

    For a store with no writer inside; one that has just collected has no orphans.
    """
    report = await examine(store)
    return [problem.text for problem in report.problems] + [f"orphan: blob {name}" for name in report.orphans]


async def examine(store: Store, *, share: float = 0.0, seed: str = "") -> Report:
    """Check catalog and blobs, and read a `share` (0 to 1) of the blobs, chosen by the seed."""
    report = Report()
    async for problem in catalog_problems(store.catalog):
        report.problems.append(problem)
    names = set(await asyncio.to_thread(lambda: list(store.blobs.names())))
    report.blobs = len(names)
    async for reference in _references(store.catalog):
        read = _is_chosen(reference.digest, share, seed)
        await _examine_blob(store, reference, report, read=read)
        names.discard(reference.digest)
    report.orphans = sorted(names)
    report.problems += await asyncio.to_thread(_totals, store)
    return report


async def catalog_problems(catalog: Catalog) -> AsyncIterator[Problem]:
    """All slices of the catalog's own check."""
    place: tuple[int, int] | None = (0, 0)
    while place is not None:
        checked = await catalog.check(place)
        for problem in checked.problems:
            yield problem
        place = checked.place


async def repair(store: Store, report: Report) -> int:
    """Delete orphans and damaged pages: how many files went. Journals and media stay as they are."""
    doomed = [*report.orphans, *report.damaged_pages]
    return await asyncio.to_thread(lambda: sum(store.blobs.delete(name) for name in doomed))


async def _references(catalog: Catalog) -> AsyncIterator[Reference]:
    after = ""
    while batch := await catalog.references(after):
        for reference in batch:
            yield reference
        after = batch[-1].digest


async def _examine_blob(store: Store, reference: Reference, report: Report, *, read: bool) -> None:
    key = await store.catalog.owner_key(reference.owner)
    report.blobs_read += read
    try:
        await asyncio.to_thread(_check_blob, store, reference, key, read=read)
    except Damage as error:
        holders = await store.catalog.holders(reference)
        cost = Cost.DATA if reference.media else Cost.TIME
        kind = "media" if reference.media else "page"
        report.problems.append(Problem(cost, f"{kind} {reference.digest}: {error}: {holders}"))
        if not reference.media and not isinstance(error, BlobMissing):
            report.damaged_pages.append(reference.digest)


def _check_blob(store: Store, reference: Reference, key: bytes, *, read: bool) -> None:
    """Raises `Damage`."""
    digest, blobs = reference.digest, store.blobs
    size = blobs.size(digest)
    if not reference.media:
        whole = pages.whole_size(blobs.get(digest, limit=pages.HEADER_BYTES))
        if size != whole:
            raise PageCorrupt(f"it has {size} bytes, not {whole}")
        if read:
            pages.check(blobs.get(digest), digest, key)
    elif read and keyed_digest(key, blobs.get(digest)) != digest:
        raise MediaCorrupt("it was altered")


def _is_chosen(digest: str, share: float, seed: str) -> bool:
    number = int.from_bytes(blake3(f"{seed}:{digest}".encode()).digest(8), "big")
    return number < share * 2**64


def _totals(store: Store) -> list[Problem]:
    if not isinstance(store.blobs, BudgetedBlobs):
        return []
    used, lying = store.blobs.used, sum(store.blobs.size(name) for name in store.blobs.names())
    return [] if used == lying else [Problem(Cost.SPACE, f"{lying} bytes are stored, {used} are counted")]
