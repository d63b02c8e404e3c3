"""The benches, by name. Each module has one `run(run)`, which fills the run's result."""

from __future__ import annotations

from collections.abc import Callable

from bench.figures import append, checkpoint, codec, crash, fidelity, fork, restore, storage
from bench.run import Run

BENCHES: dict[str, Callable[[Run], None]] = {
    "checkpoint": checkpoint.run,
    "restore": restore.run,
    "crash": crash.run,
    "fork": fork.run,
    "storage": storage.run,
    "append": append.run,
    "fidelity": fidelity.run,
    "codec": codec.run,
}
