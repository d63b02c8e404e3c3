"""One byte-level vocabulary for every tiny model, and a ChatML template.

Any text is representable: the ids 0 to 255 are the bytes themselves. One merge
(a space and a "t") makes text tokenize differently as a whole and in parts, as
it does with real vocabularies.
"""

from __future__ import annotations

from enum import IntEnum

from gguf import TokenType

from models.tiny.writer import ModelFile


class Control(IntEnum):
    """Ids of the control tokens, after the 256 bytes and the merge."""

    IM_START = 257
    IM_END = 258
    END_OF_TEXT = 259
    VISION_START = 260
    VISION_END = 261
    START_OF_IMAGE = 262
    END_OF_IMAGE = 263


MERGED = 256
"""Id of the merged token, " t"."""

VOCABULARY_SIZE = 264

CONTROL_TEXT = {
    Control.IM_START: "<|im_start|>",
    Control.IM_END: "<|im_end|>",
    Control.END_OF_TEXT: "<|endoftext|>",
    Control.VISION_START: "<|vision_start|>",
    Control.VISION_END: "<|vision_end|>",
    Control.START_OF_IMAGE: "<start_of_image>",
    Control.END_OF_IMAGE: "<end_of_image>",
}

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}
{{- part['text'] -}}
{%- elif part['type'] == 'image' -%}
{{- '<__media__>' -}}
{%- else -%}
{{- raise_exception('unknown part type: ' + part['type']) -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
"""ChatML; content is a string or a list of parts of type "text" or "image"."""


def is_printable(token: int) -> bool:
    """Whether a token is printable ASCII, a newline or the merge: what random weights may prefer to say."""
    return token in (ord("\n"), MERGED) or 0x20 <= token < 0x7F


def add_tokenizer(file: ModelFile, *, chat_template: bool) -> None:
    """Write the vocabulary, and the template unless the model is to have none."""
    letters = _byte_letters()
    merge = (letters[ord(" ")], "t")
    tokens = [*letters, "".join(merge), *CONTROL_TEXT.values()]
    types = [TokenType.NORMAL] * (MERGED + 1) + [TokenType.CONTROL] * len(CONTROL_TEXT)
    file.add_keys(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [int(kind) for kind in types],
            "tokenizer.ggml.merges": [" ".join(merge)],
            "tokenizer.ggml.eos_token_id": int(Control.IM_END),
            "tokenizer.ggml.eot_token_id": int(Control.IM_END),
            "tokenizer.ggml.padding_token_id": int(Control.END_OF_TEXT),
            "tokenizer.ggml.add_bos_token": False,
            "tokenizer.ggml.add_eos_token": False,
        }
    )
    if chat_template:
        file.add_keys({"tokenizer.chat_template": CHAT_TEMPLATE})


def _byte_letters() -> list[str]:
    """One visible letter a byte, as GPT-2 has them: printable bytes are themselves, the others move up."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = (byte for byte in range(256) if byte not in visible)
    places = {byte: 256 + place for place, byte in enumerate(moved)}
    return [chr(places.get(byte, byte)) for byte in range(256)]
