"""Puts, checkpoints, deletes and collects until killed; the oracle file holds what is certain.

python collect_child.py DATA_DIR ORACLE_FILE SEED

Each line of the oracle: `+NAME` a checkpoint was acknowledged, `-NAME` its deletion begins.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from holdfast_server.store.catalog import CheckpointRecord
from holdfast_server.store.store import Store


def content(number: int) -> bytes:
    """One of a few pages, so that what one checkpoint loses another may need."""
    return random.Random(number).randbytes(2_000 + number)


async def main(folder: Path, oracle: int, seed: int) -> None:
    chance = random.Random(seed)
    store = await Store.open(folder)
    held = [record.checkpoint_id for record in await store.catalog.list_checkpoints("ann", limit=1_000)]

    def note(line: str) -> None:
        os.write(oracle, f"{line}\n".encode())

    async def take(name: str) -> None:
        numbers = chance.sample(range(12), 3)
        async with store.writing():
            put = await asyncio.gather(*(store.put_page("ann", content(number)) for number in numbers))
            record = CheckpointRecord(
                "ann", name, "s", None, 0, 0, 0, {"pages": repr(numbers)}, "tiny", "key", 3, 0, 0, 0
            )
            digests = [page.ref.digest for page in put]
            await store.catalog.create_checkpoint(record, manifest=b"m", pages=digests)
        held.append(name)
        note(f"+{name}")

    async def drop() -> None:
        name = held.pop(chance.randrange(len(held)))
        note(f"-{name}")
        await store.catalog.delete_checkpoint("ann", name)

    step = 0
    while True:
        step += 1
        work = [take(f"c{seed}-{step}")]
        if len(held) > 4:
            work += [drop(), drop()]
        await asyncio.gather(*work, store.collect())
        if step == 1:
            print("ready", flush=True)


if __name__ == "__main__":
    descriptor = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    asyncio.run(main(Path(sys.argv[1]), descriptor, int(sys.argv[3])))
