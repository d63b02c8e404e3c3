"""What the figures were measured on, and with."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.places import CACHE

_PACKAGES = ("holdfast", "llama-cpp-python", "grpcio", "numpy", "lz4", "blake3", "xxhash")


def describe() -> dict[str, Any]:
    """The machine: processor, cores, memory, kernel, file system of the data, load before the run."""
    return {
        "processor": _field(Path("/proc/cpuinfo"), "model name"),
        "cores": os.cpu_count() or 1,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "file_system": _file_system(CACHE),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of what the server is made of."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES}


def _field(path: Path, name: str) -> str:
    if not path.exists():
        return platform.processor()
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), platform.processor())


def _file_system(folder: Path) -> str:
    """The type of the file system that holds `folder`."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown"
    fields = [line.split() for line in mounts.read_text().splitlines()]
    holding = [f for f in fields if folder.is_relative_to(f[1])]
    return max(holding, key=lambda f: len(f[1]), default=["", "", "unknown"])[2]
