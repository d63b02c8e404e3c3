"""Where things are kept. Everything but the results lies outside the repository."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "bench" / "results"
DOCS = REPOSITORY / "docs" / "benchmarks.md"
CACHE = Path(os.environ.get("HOLDFAST_BENCH_CACHE", Path.home() / ".cache" / "holdfast-bench"))
"""The peer's build, models, and the servers' data while a bench runs: on a disk, not in memory."""
