"""Appends to a store until killed; each acknowledged append is a line in the oracle file.

python crash_child.py DATA_DIR ORACLE_FILE
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.store.catalog import SessionRecord
from holdfast_server.store.store import Store


async def main(folder: Path) -> None:
    store = await Store.open(folder)
    try:
        record = await store.catalog.get_session("ann", "s")
    except HoldfastError as error:
        assert error.reason is Reason.SESSION_NOT_FOUND
        record = SessionRecord("ann", "s", None, 0, 0, 0, "{}", {}, "tiny", 0, 0)
        await store.catalog.create_session(record)
    while True:
        payload = b"entry %d" % (record.revision + 1)
        async with store.writing():
            media = await store.put_media("ann", payload * 50)
            record = await store.catalog.append(
                "ann",
                "s",
                expected_revision=record.revision,
                payload=payload,
                media=[media],
                token_count=0,
                position=0,
                updated=0,
            )
        os.write(1, b"%d %s\n" % (record.revision, media.encode()))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
