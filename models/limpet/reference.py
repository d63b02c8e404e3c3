"""What PyTorch computes with a checkpoint, for a picture and two prompts, kept for ``parity`` to compare.

``python -m models.limpet.reference --checkpoint FILE`` writes ``reference.npz``: the pixels, the prompts as
text and as token ids, the eye's 64 embeddings, and the logits behind each prompt.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from .dialogues import Message
from .export import HERE, load
from .network import Sizes, Voice
from .pool import draw_one
from .rows import IMAGE_SLOT, Encoder, Row
from .tokenizer import START, Tokenizer

QUESTION = "What colour is the circle?"
TOLD = "My name is Ada. The code is 4821. What is my name?"
_PROMPTS: dict[str, tuple[str | int, ...]] = {"picture": (0, QUESTION), "text": (TOLD,)}


def write_reference(checkpoint: Path, out: Path) -> None:
    """Matrices are rounded to 16 bits first, as the export rounds them."""
    eye, voice = load(checkpoint, Sizes())
    for weight in (*eye.parameters(), *voice.parameters()):
        if weight.dim() > 1 and weight is not eye.positions:
            weight.data = weight.data.half().float()
    pixels = draw_one(np.random.default_rng(7))[1]
    kept: dict[str, npt.NDArray[np.generic]] = {"pixels": pixels}
    with torch.no_grad():
        seen = eye(torch.from_numpy(pixels.copy())[None])[0]
        kept["embedding"] = seen.numpy()
        for name, parts in _PROMPTS.items():
            tokens = _tokens(parts)
            kept[f"{name}_prompt"] = np.array(_prompt(parts))
            kept[f"{name}_tokens"] = tokens.numpy()
            kept[f"{name}_logits"] = _logits(voice, tokens, seen).numpy()
    np.savez_compressed(out, **kept)  # type: ignore[arg-type]  # numpy's stub also sees allow_pickle there


def _tokens(parts: tuple[str | int, ...]) -> torch.Tensor:
    """Ids of a user's message and the start of the answer; IMAGE_SLOT where the picture is."""
    tokenizer, row = Tokenizer.load(HERE / "tokenizer.json"), Row()
    Encoder(tokenizer).add(row, Message("user", parts))
    return torch.tensor([*row.tokens, tokenizer.control(START), *tokenizer.encode("assistant\n")])


def _prompt(parts: tuple[str | int, ...]) -> str:
    """The same as llama.cpp is given it."""
    said = "".join(part if isinstance(part, str) else "<__media__>" for part in parts)
    return f"<|im_start|>user\n{said}<|im_end|>\n<|im_start|>assistant\n"


def _logits(voice: Voice, tokens: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Of the last position: (vocabulary,)."""
    embeddings = voice.embed(tokens.clamp(min=0))
    here = tokens == IMAGE_SLOT
    embeddings[here] = seen[: int(here.sum())]
    return voice.logits(voice.states(embeddings[None])[-1])[0, -1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.limpet.reference", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="voice.pt of the training")
    parser.add_argument("--out", type=Path, default=HERE / "reference.npz")
    arguments = parser.parse_args()
    write_reference(arguments.checkpoint, arguments.out)


if __name__ == "__main__":
    main()
