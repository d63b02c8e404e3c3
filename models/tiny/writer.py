"""A GGUF file of seeded random weights.

Every tensor is drawn from its own stream, named by the seed and the tensor, so
that adding a tensor changes no other. Weights are uniform rather than normal:
that needs no libm, so the bytes are the same on every platform.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

Array: TypeAlias = npt.NDArray[np.float32]
Value: TypeAlias = str | bool | int | float | Sequence[str] | Sequence[int] | Sequence[float]


class ModelFile:
    """One GGUF file being written: metadata first, then tensors, row-major as numpy has them.

    Shapes are numpy's: a weight that maps n inputs to m outputs is (m, n).
    """

    def __init__(self, path: Path, architecture: str, seed: int) -> None:
        self._writer = GGUFWriter(path, architecture)
        self._architecture = architecture
        self._seed = seed
        self._writer.add_name(f"tiny {architecture}")

    def add_keys(self, keys: Mapping[str, Value]) -> None:
        """Write metadata under full names. Integers become u32 (i32 within arrays), floats f32."""
        for key, value in keys.items():
            self._add_key(key, value)

    def add_hyperparameters(self, keys: Mapping[str, Value]) -> None:
        """Write metadata under `<architecture>.`."""
        self.add_keys({f"{self._architecture}.{key}": value for key, value in keys.items()})

    def draw(self, name: str, shape: tuple[int, ...], std: float) -> Array:
        """Uniform numbers with mean 0, the same for the same seed, name and shape."""
        stream = np.random.RandomState(zlib.crc32(f"{self._seed}/{name}".encode()))
        unit = stream.random_sample(shape) * 2 - 1
        return (unit * (3**0.5 * std)).astype(np.float32)

    def add(self, name: str, tensor: Array, kind: GGMLQuantizationType = GGMLQuantizationType.F32) -> None:
        """Write one tensor as given, quantized if asked; the last axis must then be a multiple of 32."""
        self._writer.add_tensor(name, quantize(np.ascontiguousarray(tensor), kind), raw_dtype=kind)

    def add_constant(self, name: str, width: int, value: float) -> None:
        """Write a vector of equal numbers."""
        self.add(name, np.full(width, value, np.float32))

    def add_norm(self, name: str, width: int, *, scale: float = 1.0, bias: bool = False) -> None:
        """Write a norm that scales by `scale`, and shifts by zero if it has a bias."""
        self.add_constant(f"{name}.weight", width, scale)
        if bias:
            self.add_constant(f"{name}.bias", width, 0)

    def finish(self) -> None:
        """Write everything out and close the file."""
        self._writer.write_header_to_file()
        self._writer.write_kv_data_to_file()
        self._writer.write_tensors_to_file()
        self._writer.close()

    def _add_key(self, key: str, value: Value) -> None:
        match value:
            case str():
                self._writer.add_string(key, value)
            case bool():
                self._writer.add_bool(key, value)
            case int():
                self._writer.add_uint32(key, value)
            case float():
                self._writer.add_float32(key, value)
            case _:
                self._writer.add_array(key, value)


@contextmanager
def model_file(path: Path, architecture: str, seed: int) -> Iterator[ModelFile]:
    """Write `path` through a temporary file beside it: it appears whole or not at all.

    Threads and processes may race to write the same path; each writes the same bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        file = ModelFile(temporary, architecture, seed)
        yield file
        file.finish()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
