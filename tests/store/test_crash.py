"""kill -9 of a real process while it appends. The oracle is what its parent has heard of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from holdfast_server.store.store import Store

CHILD = Path(__file__).parent / "crash_child.py"
KILLS = 5
APPENDS = 20


def append_and_kill(folder: Path) -> list[tuple[int, str]]:
    """Kill the child in the midst of its 21st append or later: (revision, media) of the acknowledged ones."""
    child = subprocess.Popen([sys.executable, str(CHILD), str(folder)], stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(APPENDS)]
        child.kill()
        lines += child.stdout.readlines()  # acknowledged between the last line and the kill
    return [(int(revision), media) for revision, media in (line.split() for line in lines)]


async def test_no_acknowledged_append_is_lost_or_doubled(tmp_path: Path) -> None:
    revision = 0
    pictures: dict[int, str] = {}
    for _ in range(KILLS):
        heard = append_and_kill(tmp_path / "data")
        assert [number for number, _ in heard] == list(range(revision + 1, revision + len(heard) + 1))
        pictures |= dict(heard)
        store = await Store.open(tmp_path / "data")
        record = await store.catalog.get_session("ann", "s")
        # The last append may be durable although nobody heard of it.
        assert record.revision - heard[-1][0] in (0, 1)
        revision = record.revision
        entries = await store.catalog.journal("ann", record.head)
        assert [entry.payload for entry in entries] == [b"entry %d" % n for n in range(1, revision + 1)]
        assert await store.collect() <= 1  # the picture whose append was killed
        for number, picture in pictures.items():
            assert await store.get_media("ann", picture) == b"entry %d" % number * 50
        await store.close()
