"""A pool of drawn pictures with their scenes and patch labels, rendered once and kept on disk.

Drawing costs milliseconds a picture; training looks at each picture many times. Files in the folder:
``pixels.npy`` (N, 96, 96, 3) uint8, ``labels.npy`` (N, 64, labels) int8, ``scenes.pickle``.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .drawing import EDGE, draw_at_any_size, fit
from .scenes import LABEL_CLASSES, Scene, patch_labels, sample_scene

_BLOCK = 500


@dataclass(frozen=True, slots=True)
class Pool:
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int8]
    scenes: list[Scene]

    def __len__(self) -> int:
        return len(self.scenes)


def draw_one(rng: np.random.Generator, most_shapes: int = 3) -> tuple[Scene, npt.NDArray[np.uint8]]:
    """A scene and its (96, 96, 3) pixels, drawn at another size and aspect first."""
    scene = sample_scene(rng, most_shapes)
    return scene, np.asarray(fit(draw_at_any_size(scene, rng)), np.uint8)


def _block(job: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int8], list[Scene]]:
    seed, number = job
    rng = np.random.default_rng([seed, number])
    drawn = [draw_one(rng, 1 + int(rng.random() < 0.9) + int(rng.random() < 0.8)) for _ in range(_BLOCK)]
    labels = np.stack([patch_labels(scene) for scene, _ in drawn])
    return np.stack([pixels for _, pixels in drawn]), labels, [scene for scene, _ in drawn]


def make_pool(folder: Path, count: int, seed: int) -> None:
    """Render `count` pictures (rounded up to whole blocks); the same seed gives the same pool."""
    blocks = -(-count // _BLOCK)
    folder.mkdir(parents=True, exist_ok=True)
    size = blocks * _BLOCK
    pixels = np.lib.format.open_memmap(folder / "pixels.npy", "w+", np.uint8, (size, EDGE, EDGE, 3))
    labels = np.lib.format.open_memmap(folder / "labels.npy", "w+", np.int8, (size, 64, len(LABEL_CLASSES)))
    scenes: list[Scene] = []
    with multiprocessing.Pool(os.cpu_count()) as workers:
        jobs = [(seed, number) for number in range(blocks)]
        for number, block in enumerate(workers.imap(_block, jobs)):
            span = slice(number * _BLOCK, (number + 1) * _BLOCK)
            pixels[span], labels[span] = block[0], block[1]
            scenes += block[2]
    pixels.flush()
    labels.flush()
    (folder / "scenes.pickle").write_bytes(pickle.dumps(scenes))


def load_pool(folder: Path) -> Pool:
    """A pool that `make_pool` wrote on this machine (its scenes are a pickle: never load a stranger's)."""
    scenes: list[Scene] = pickle.loads((folder / "scenes.pickle").read_bytes())
    return Pool(np.load(folder / "pixels.npy", "r"), np.load(folder / "labels.npy", "r"), scenes)
