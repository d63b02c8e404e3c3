"""Every tiny projector through the real mtmd: encoding, positions, effect on what follows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from llama_cpp import mtmd_cpp

from models.tiny import NAMES, make
from tests.models.runtime import Eyes, Picture, Runtime

SEEING = [name for name in NAMES if name != "llama-notemplate"]
every_projector = pytest.mark.parametrize("eyes", SEEING, indirect=True)


def _plain(red: int, green: int, blue: int) -> Picture:
    return np.full((48, 64, 3), (red, green, blue), np.uint8)


def _disc(radius: int) -> Picture:
    rows, columns = np.mgrid[0:48, 0:64]
    inside = (rows - 24) ** 2 + (columns - 32) ** 2 < radius**2
    return np.where(inside[..., None], _plain(255, 255, 0), _plain(0, 0, 128))


PICTURES = {"red": _plain(255, 0, 0), "white": _plain(255, 255, 255), "small": _disc(9), "large": _disc(20)}


def test_all_but_one_model_can_see(folder: Path) -> None:
    assert [name for name in NAMES if make(name, folder).projector] == SEEING


@pytest.mark.parametrize(
    ("eyes", "tokens"), [(name, 12 if name == "qwen2vl" else 16) for name in SEEING], indirect=["eyes"]
)
def test_pictures_become_finite_embeddings(eyes: Eyes, tokens: int) -> None:
    embeddings = eyes.embed(PICTURES["small"])
    assert len(embeddings) == tokens
    assert np.isfinite(embeddings).all()
    assert (eyes.embed(PICTURES["small"]) == embeddings).all()


@every_projector
def test_different_pictures_are_followed_by_different_logits(eyes: Eyes) -> None:
    logits = [eyes.see(picture) for picture in PICTURES.values()]
    gaps = [abs(a - b).max() for index, a in enumerate(logits) for b in logits[:index]]
    assert min(gaps) > 0.5


@every_projector
def test_the_same_picture_is_followed_by_the_same_text(eyes: Eyes) -> None:
    texts = [eyes.runtime.generate(eyes.see(PICTURES["small"]), 20) for _ in range(2)]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) >= 8


@pytest.mark.parametrize(("eyes", "positions"), [("llama", 16), ("qwen2vl", 4)], indirect=["eyes"])
def test_only_mrope_takes_fewer_positions_than_tokens(eyes: Eyes, positions: int) -> None:
    picture = PICTURES["small"]  # under M-RoPE four columns and three rows, at one temporal position
    assert eyes.positions(picture) == positions
    assert mtmd_cpp.mtmd_decode_use_mrope(eyes.context) is (positions < len(eyes.embed(picture)))


@pytest.mark.parametrize(("eyes", "non_causal"), [("llama", False), ("gemma3", True)], indirect=["eyes"])
def test_only_gemma3_decodes_pictures_without_causality(eyes: Eyes, non_causal: bool) -> None:
    assert mtmd_cpp.mtmd_decode_use_non_causal(eyes.context, None) is non_causal


@pytest.mark.parametrize("runtime", ["llama-wide"], indirect=True)
def test_a_projector_of_another_width_does_not_fit(runtime: Runtime, folder: Path) -> None:
    projector = make("llama", folder).projector
    assert projector is not None
    with pytest.raises(AssertionError, match="refuses"):
        Eyes(runtime, projector)
