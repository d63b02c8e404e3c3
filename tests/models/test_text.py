"""Every tiny model through the real llama.cpp: memory kind, vocabulary, varied text."""

from __future__ import annotations

from pathlib import Path

import llama_cpp
import pytest

from models.tiny import NAMES, make
from models.tiny.tokenizer import CHAT_TEMPLATE, CONTROL_TEXT, MERGED, VOCABULARY_SIZE, Control, is_printable
from models.tiny.transformer import END_OF_TRANSMISSION
from tests.models.runtime import Runtime

every_model = pytest.mark.parametrize("runtime", NAMES, indirect=True)
PROMPTS = (
    b"a",
    b"hello there, tiny model",
    b"<|im_start|>user\nhow are you?<|im_end|>\n<|im_start|>assistant\n",
)


def _memory(model: object) -> str:
    if llama_cpp.llama_model_is_recurrent(model):
        return "recurrent"
    if llama_cpp.llama_model_is_hybrid(model):
        return "hybrid"
    if llama_cpp.llama_model_n_swa(model) > 0:
        return "iswa"
    mrope = llama_cpp.llama_model_rope_type(model) == llama_cpp.LLAMA_ROPE_TYPE_MROPE
    return "mrope" if mrope else "plain"


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_as_stated(name: str, folder: Path) -> None:
    made = make(name, folder)
    with Runtime(made.model) as runtime:
        assert _memory(runtime.model) == made.memory


@every_model
def test_vocabulary(runtime: Runtime) -> None:
    assert llama_cpp.llama_vocab_n_tokens(runtime.vocab) == VOCABULARY_SIZE
    assert llama_cpp.llama_vocab_eos(runtime.vocab) == Control.IM_END
    assert llama_cpp.llama_vocab_eot(runtime.vocab) == Control.IM_END
    assert llama_cpp.llama_model_n_ctx_train(runtime.model) == 8192
    assert [runtime.tokenize(text.encode()) for text in CONTROL_TEXT.values()] == [[i] for i in CONTROL_TEXT]
    assert [i for i in CONTROL_TEXT if llama_cpp.llama_vocab_is_control(runtime.vocab, i)] == [*Control]


@pytest.mark.parametrize("runtime", ["llama"], indirect=True)
def test_any_text_is_its_bytes(runtime: Runtime) -> None:
    text = "tab\there, naïve ☃ 漢字 \N{GRINNING FACE}\r\n".encode()
    assert runtime.tokenize(text) == list(text)
    assert runtime.detokenize(list(range(256))) == bytes(range(256))


@pytest.mark.parametrize("runtime", ["llama"], indirect=True)
def test_a_space_and_a_t_merge(runtime: Runtime) -> None:
    assert runtime.tokenize(b" to") == [MERGED, ord("o")]
    assert runtime.detokenize([MERGED]) == b" t"


@pytest.mark.parametrize("runtime", ["llama"], indirect=True)
def test_control_text_is_plain_text_unless_asked_for(runtime: Runtime) -> None:
    assert runtime.tokenize(b"<|im_end|>", parse_special=False) == list(b"<|im_end|>")


@every_model
@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_is_varied_printable_and_does_not_end(runtime: Runtime, prompt: bytes) -> None:
    tokens = runtime.generate(runtime.decode(runtime.tokenize(prompt)), 200)
    assert len(set(tokens)) >= 40
    assert len(set(zip(tokens, tokens[1:], tokens[2:], strict=False))) >= 120
    assert all(map(is_printable, tokens))


@every_model
def test_prompts_that_differ_early_continue_differently(runtime: Runtime) -> None:
    first = runtime.decode(runtime.tokenize(b"a quick brown fox"))
    runtime.forget()
    assert abs(first - runtime.decode(runtime.tokenize(b"b quick brown fox"))).max() > 0.1


@every_model
def test_end_of_transmission_ends_the_message(runtime: Runtime) -> None:
    assert runtime.decode([*b"hello", END_OF_TRANSMISSION]).argmax() == Control.IM_END


@pytest.mark.parametrize(
    ("runtime", "template"),
    [(name, None if name == "llama-notemplate" else CHAT_TEMPLATE.encode()) for name in NAMES],
    indirect=["runtime"],
)
def test_all_but_one_model_have_the_template(runtime: Runtime, template: bytes | None) -> None:
    assert llama_cpp.llama_model_chat_template(runtime.model, None) == template
