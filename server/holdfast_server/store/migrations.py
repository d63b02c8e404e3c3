"""What makes an older catalog a present one.

`STEPS[i]` takes the tables of version `FIRST + i` to the next version. A step
that has been released never changes; a new one is added at the end, and with it
`schema.metadata` describes the tables as they are afterwards. All steps of an
opening run in its one transaction: a catalog is migrated as a whole or not at
all.

A change of the page, journal or manifest format raises that format's own
version and, by a step (an empty one if need be), the schema's, so that an older
server refuses the whole store at its start and not one session at a time.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, update

from holdfast_server.errors import StartupError
from holdfast_server.store import schema

Step = Callable[[Connection], None]

FIRST = 1
STEPS: tuple[Step, ...] = ()


def current() -> int:
    """The version that this server reads and writes."""
    return FIRST + len(STEPS)


def migrate(connection: Connection, found: int) -> None:
    """Bring the tables of version `found` up to date, inside the caller's transaction.

    Raises `StartupError` for a version this server does not know.
    """
    if found > current():
        raise StartupError(
            f"the data directory was written by a newer holdfast (its version is {found}, this server's "
            f"{current()}); use that version or a newer one"
        )
    if found < FIRST:
        raise StartupError(f"the data directory has version {found}, which no released holdfast wrote")
    for step in STEPS[found - FIRST :]:
        step(connection)
    if found < current():
        connection.execute(update(schema.store).values(schema_version=current()))
