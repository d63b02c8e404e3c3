"""Collection against live checkpoints, killed at random: nothing referenced is ever missing."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from pathlib import Path

from holdfast_server.store import pages
from holdfast_server.store.check import check_integrity, examine
from holdfast_server.store.store import Store
from tests.store.collect_child import content

KILLS = 30
CHILD = Path(__file__).with_name("collect_child.py")


def run_until_killed(folder: Path, oracle: Path, seed: int, seconds: float) -> None:
    """A child that has begun to work, killed after so long."""
    command = [sys.executable, str(CHILD), str(folder), str(oracle), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        threading.Timer(seconds, child.kill).start()
        assert child.wait(30) == -9, "it ended by itself"


async def verify(folder: Path, lines: list[str], *, collect: bool) -> int:
    """Every acknowledged checkpoint that nobody began to delete is whole: how many there are."""
    store = await Store.open(folder)
    report = await examine(store, share=1)
    assert report.problems == []
    deleted = {line[1:] for line in lines if line.startswith("-")}
    kept = [line[1:] for line in lines if line.startswith("+") and line[1:] not in deleted]
    for name in kept:
        record = await store.catalog.get_checkpoint("ann", name)
        for number in json.loads(record.labels["pages"]):
            digest = await store.media_digest("ann", content(number))  # named as the page is
            pages.check(store.blobs.get(digest), digest, await store.catalog.owner_key("ann"))
    if collect:
        await store.collect()
        assert await check_integrity(store) == []
    await store.close()
    return len(kept)


async def test_nothing_referenced_is_ever_missing(tmp_path: Path) -> None:
    folder, oracle = tmp_path / "data", tmp_path / "oracle"
    chance = random.Random(6)
    most = 0
    for number in range(KILLS):
        run_until_killed(folder, oracle, number, chance.uniform(0, 0.15))
        lines = oracle.read_text().splitlines()
        # Every other time the child itself meets what its forerunner left.
        most = max(most, await verify(folder, lines, collect=number % 2 == 0))
    assert most > 1
    assert sum(line.startswith("-") for line in oracle.read_text().splitlines()) > KILLS
