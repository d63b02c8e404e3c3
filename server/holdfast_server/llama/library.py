"""The llama.cpp library itself: version, backends, log."""

from __future__ import annotations

import ctypes
import functools
import logging
from collections import deque

import llama_cpp
from llama_cpp import mtmd_cpp

from holdfast_server.errors import StartupError

PINNED = "0.3.36"
"""The llama-cpp-python whose state format was measured (docs/ARCHITECTURE.md)."""

_logger = logging.getLogger("holdfast.llama")
_LEVELS = {2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}
_recent: deque[str] = deque(maxlen=8)


def _on_log(level: int, text: bytes, _user_data: object) -> None:
    line = text.decode("utf-8", "replace").strip()
    if not line:
        return
    if level >= 4:
        _recent.append(line)
    _logger.log(_LEVELS.get(level, logging.DEBUG), "%s", line)


# The library keeps the pointer, so the callback object lives as long as the module.
_callback = llama_cpp.llama_log_callback(_on_log)


@functools.cache
def start() -> None:
    """Initialises the backends once per process and routes the log here.

    Raises StartupError when the library is not the version that was measured.
    """
    if llama_cpp.__version__ != PINNED:
        raise StartupError(
            f"llama-cpp-python {llama_cpp.__version__} is installed, but this Holdfast was proven with "
            f"{PINNED} only: pip install llama-cpp-python=={PINNED}"
        )
    llama_cpp.llama_log_set(_callback, ctypes.c_void_p(0))
    mtmd_cpp.mtmd_log_set(_callback, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()


def last_error() -> str:
    """The newest line llama.cpp logged as an error, for start-up messages; may hold paths."""
    return _recent[-1] if _recent else "llama.cpp gave no reason"


def version() -> str:
    """llama-cpp-python's version and that of the llama.cpp inside it."""
    return f"{llama_cpp.__version__} (llama.cpp {llama_cpp.llama_version().decode()})"


def system() -> str:
    """What the library was built for: backends and CPU features."""
    return str(llama_cpp.llama_print_system_info().decode())


def backend() -> str:
    """Whether layers can be offloaded: a page computed on a GPU is not taken for one of the CPU."""
    return "gpu" if llama_cpp.llama_supports_gpu_offload() else "cpu"
