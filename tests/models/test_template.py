"""The chat template, rendered as the server renders it."""

from __future__ import annotations

from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from llama_cpp.mtmd_cpp import mtmd_default_marker

from models.tiny.tokenizer import CHAT_TEMPLATE


class _RefusedError(Exception):
    pass


def _refuse(message: str) -> None:
    raise _RefusedError(message)


def _render(*messages: dict[str, Any], add_generation_prompt: bool = False) -> str:
    template = ImmutableSandboxedEnvironment().from_string(CHAT_TEMPLATE)
    return template.render(
        messages=messages, add_generation_prompt=add_generation_prompt, raise_exception=_refuse
    )


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_every_role_is_written(role: str) -> None:
    text = _render({"role": role, "content": " said so.\n"})
    assert text == f"<|im_start|>{role}\n said so.\n<|im_end|>\n"


def test_parts_are_written_in_order() -> None:
    parts = [{"type": "text", "text": "this "}, {"type": "image"}, {"type": "text", "text": " that"}]
    marker = mtmd_default_marker().decode()
    assert _render({"role": "user", "content": parts}) == f"<|im_start|>user\nthis {marker} that<|im_end|>\n"


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(_RefusedError, match="smell"):
        _render({"role": "user", "content": [{"type": "smell"}]})


def test_the_reply_is_opened_last() -> None:
    text = _render({"role": "user", "content": "hi"}, add_generation_prompt=True)
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_a_conversation_only_grows() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    opened = _render(turns[0], add_generation_prompt=True)
    assert _render(*turns).startswith(opened)
