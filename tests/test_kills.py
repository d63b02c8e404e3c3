"""SIGKILL at random moments under a mixed load, against an oracle outside the server.

HOLDFAST_KILLS=30000 pytest tests/test_kills.py --timeout 0     for a long night
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from models import tiny
from tests import oracle
from tests.oracle import Writer
from tests.processes import running

KILLS = int(os.environ.get("HOLDFAST_KILLS", "100"))


@pytest.mark.timeout(1200)
async def test_nothing_acknowledged_is_lost_under_a_mixed_load(models_dir: Path, tmp_path: Path) -> None:
    model, data = tiny.make("llama", models_dir), tmp_path / "data"
    chance = random.Random(11)
    writers = [Writer(name, random.Random(name)) for name in ("ann", "bob", "cid")]
    for _ in range(KILLS):
        async with running(model, data) as server, server.stub() as stub:
            tasks = [asyncio.create_task(writer.work(stub)) for writer in writers]
            goal = sum(writer.acknowledged for writer in writers) + chance.randrange(1, 40)
            while sum(writer.acknowledged for writer in writers) < goal and not any(t.done() for t in tasks):
                await asyncio.sleep(0)
            server.kill()
            await asyncio.gather(*tasks)
        await oracle.compare(writers, data)
    assert sum(writer.acknowledged for writer in writers) > KILLS
