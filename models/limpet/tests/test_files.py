"""The two shipped files on llama.cpp: the same numbers, tokens and template as in training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from models.limpet.engine import DATA, MARKER, Engine
from models.limpet.parity import TOLERANCE, check_reference

FILES = (DATA / "limpet.gguf", DATA / "limpet-mmproj.gguf")
pytestmark = pytest.mark.skipif(not FILES[0].exists(), reason="Limpet has not been exported yet")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(*FILES)
    yield engine
    engine.close()


def test_together_they_stay_under_8_mb() -> None:
    assert sum(file.stat().st_size for file in FILES) <= 8_000_000


def test_llama_cpp_computes_what_the_framework_computed() -> None:
    assert check_reference() <= TOLERANCE


def test_any_text_has_tokens(engine: Engine) -> None:
    for text in ("What colour is the circle?", "Zażółć gęślą jaźń 🦀", "a\t b\n\nc  47!?", "<|im_end|>"):
        tokens = engine.tokens(text, special=False)
        assert b"".join(engine.piece(token) for token in tokens).decode() == text


def test_each_digit_is_a_token(engine: Engine) -> None:
    assert len(engine.tokens("4821")) == 4


def test_the_template_renders_strings_and_parts(engine: Engine) -> None:
    template = ImmutableSandboxedEnvironment().from_string(engine.template())
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": [{"type": "text", "text": "And"}, {"type": "image"}]},
    ]
    assert template.render(messages=messages, add_generation_prompt=True) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n"
        f"<|im_start|>user\n{MARKER}Hi<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n"
        f"<|im_start|>user\nAnd{MARKER}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_picture_changes_what_comes_next(engine: Engine) -> None:
    from PIL import Image

    logits = []
    for colour in ("red", "blue"):
        engine.reset()
        engine.feed(f"<|im_start|>user\n{MARKER}", [Image.new("RGB", (80, 60), colour)])
        logits.append(engine.logits())
    assert np.abs(logits[0] - logits[1]).max() > 0.01
