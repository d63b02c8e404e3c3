from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from holdfast_server.store.blobs import BlobStore
from holdfast_server.store.catalog import Catalog, Cost
from holdfast_server.store.check import examine
from holdfast_server.store.file_blobs import FileBlobs
from holdfast_server.store.sql_catalog import SqlCatalog
from holdfast_server.store.store import Store
from tests.store.fakes import MemoryBlobs, MemoryCatalog


@pytest.fixture(params=["sqlite", "memory"])
async def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Catalog]:
    """Every implementation of the catalog in turn."""
    opened: Catalog = MemoryCatalog()
    if request.param == "sqlite":
        opened = await SqlCatalog.open(tmp_path / "catalog.sqlite3")
    yield opened
    await opened.close()


@pytest.fixture
async def sql(tmp_path: Path) -> AsyncIterator[SqlCatalog]:
    opened = await SqlCatalog.open(tmp_path / "catalog.sqlite3")
    yield opened
    await opened.close()


@pytest.fixture(params=["files", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    """Every implementation of the blob store in turn."""
    opened = FileBlobs(tmp_path / "blobs") if request.param == "files" else MemoryBlobs()
    yield opened
    opened.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store that must be consistent when the test is over, whatever damage it did to files."""
    opened = await Store.open(tmp_path / "data")
    yield opened
    await opened.close()
    again = await Store.open(tmp_path / "data")
    await again.collect()
    report = await examine(again)
    assert [p.text for p in report.problems if p.cost is Cost.SPACE] + report.orphans == []
    assert [p.text for p in report.problems if "journal" in p.text] == []
    await again.close()
