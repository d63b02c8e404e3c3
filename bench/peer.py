"""The peer's build: llama-server out of the sources that the pinned llama-cpp-python carries."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path

from bench.places import CACHE

_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
)


def version() -> str:
    """The version of llama-cpp-python that Holdfast runs on, and whose sources the peer is built from."""
    return metadata.version("llama-cpp-python")


def binary() -> Path:
    """Where the peer's binary is once built."""
    return CACHE / f"llama-cpp-python-{version()}" / "bin" / "llama-server"


def require() -> Path:
    """The binary. Raises SystemExit, saying what to do, where it is not built."""
    if not binary().exists():
        raise SystemExit("bench: llama-server is not built; run: python -m bench peer")
    return binary()


def build(jobs: int, sources: Path | None = None) -> Path:
    """Builds llama-server unless it is there: about 10 minutes on 2 cores; its path.

    `sources` is an unpacked llama.cpp of the same sdist; without it, pip
    downloads the sdist. Raises CalledProcessError when pip, cmake or ninja fails.
    """
    if binary().exists():
        return binary()
    tree, out = sources or _download(), binary().parent.parent
    subprocess.run(["cmake", "-S", tree, "-B", out, "-G", "Ninja", *_OPTIONS], check=True)
    subprocess.run(["cmake", "--build", out, "--target", "llama-server", f"-j{jobs}"], check=True)
    return binary()


def _download() -> Path:
    """Downloads and unpacks the sdist; the llama.cpp in it."""
    name = f"llama_cpp_python-{version()}"
    wanted = ["--no-deps", "--no-binary", ":all:", f"llama-cpp-python=={version()}"]
    CACHE.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "pip", "download", *wanted, "-d", CACHE], check=True)
    with tarfile.open(CACHE / f"{name}.tar.gz") as archive:
        archive.extractall(CACHE, filter="data")
    return CACHE / name / "vendor" / "llama.cpp"
