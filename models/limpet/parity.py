"""Does llama.cpp compute what PyTorch computed? ``reference.npz`` says what that was.

``python -m models.limpet.parity`` needs llama.cpp and the shipped files, not PyTorch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from .engine import DATA, MARKER, Engine

REFERENCE = Path(__file__).parent / "reference.npz"
TOLERANCE = 0.1
"""Both sides start from the same 16-bit weights, but llama.cpp also rounds the eye's activations before
its convolutions, and its KV cache, to 16 bits. Logits are of the order of 10, embeddings of 1."""


def check_reference(data: Path = DATA, reference: Path = REFERENCE) -> float:
    """The largest absolute difference between llama.cpp and the reference: over the eye's embeddings,
    the logits behind a picture, and those behind text. Raises ValueError if the text has other tokens."""
    expected = np.load(reference)
    engine = Engine(data / "limpet.gguf", data / "limpet-mmproj.gguf")
    try:
        picture = Image.fromarray(expected["pixels"])
        gaps = [np.abs(engine.embedding(picture) - expected["embedding"]).max()]
        for name in ("picture", "text"):
            prompt, tokens = str(expected[f"{name}_prompt"]), expected[f"{name}_tokens"].tolist()
            if MARKER not in prompt and engine.tokens(prompt, first=True) != tokens:
                raise ValueError("llama.cpp splits the text into other tokens than training did")
            engine.reset()
            engine.feed(prompt, [picture] * prompt.count(MARKER))
            if engine.position != len(tokens):
                raise ValueError(f"{engine.position} positions, not {len(tokens)}")
            gaps.append(np.abs(engine.logits() - expected[f"{name}_logits"]).max())
        return float(max(gaps))
    finally:
        engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.limpet.parity", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the two GGUF files")
    print(f"largest difference {check_reference(parser.parse_args().data):.4f}, tolerance {TOLERANCE}")


if __name__ == "__main__":
    main()
