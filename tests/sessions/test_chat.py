"""Chat templates rendered a turn at a time, and what becomes of those that cannot be."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.sessions.chat import ChatTemplate, Transcript
from holdfast_server.sessions.journal import Entry, ImagePart, Kind, Message, Part, TextPart
from holdfast_server.sessions.session import Role

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TYPED = (
    "{% for m in messages %}[{{ m.role }}]{% for p in m['content'] %}"
    "{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}[/]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def template(source: str, bos: str = "") -> ChatTemplate:
    return ChatTemplate(source, bos=bos, eos="<|im_end|>")


def message(role: Role, *parts: str | Part) -> Message:
    return Message(role, tuple(TextPart(part) if isinstance(part, str) else part for part in parts))


def text(parts: Sequence[Part]) -> str:
    """The parts as one string, pictures in braces."""
    return "".join(part.text if isinstance(part, TextPart) else f"{{{part.digest}}}" for part in parts)


class Conversation:
    """Feeds a template turn by turn, as a session does."""

    def __init__(self, source: str) -> None:
        self.template = template(source)
        self.transcript = Transcript()
        self.fed = ""

    def say(self, *messages: Message) -> str:
        new = text(self.template.append(self.transcript, messages))
        self.transcript.add(Entry(Kind.APPEND, messages, ()))
        self.fed += new
        return new

    def answer(self, words: str, end: str = "<|im_end|>") -> None:
        self.fed += text(self.template.prompt(self.transcript)) + words + end
        self.transcript.add(Entry(Kind.GENERATE, (message(Role.ASSISTANT, words),), (), end))


def test_turns_add_up_to_the_whole_conversation() -> None:
    chat = Conversation(CHATML)
    chat.say(message(Role.SYSTEM, "be kind"), message(Role.USER, "hello ", "there"))
    chat.answer("hi")
    chat.say(message(Role.USER, ImagePart("pic"), "what is it?"))
    chat.answer("a limpet")
    assert chat.fed == (
        "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhello there<|im_end|>\n"
        "<|im_start|>assistant\nhi<|im_end|>\n<|im_start|>user\n{pic}what is it?<|im_end|>\n"
        "<|im_start|>assistant\na limpet<|im_end|>"
    )


def test_an_answer_cut_short_goes_on_and_is_closed_by_the_next_message() -> None:
    chat = Conversation(CHATML)
    chat.say(message(Role.USER, "count"))
    chat.answer("one two", end="")
    chat.answer(" three", end="")
    chat.say(message(Role.USER, "thanks"))
    assert chat.fed == (
        "<|im_start|>user\ncount<|im_end|>\n<|im_start|>assistant\none two three<|im_end|>\n"
        "<|im_start|>user\nthanks<|im_end|>\n"
    )


def test_two_answers_in_a_row_are_two_turns() -> None:
    chat = Conversation(CHATML)
    chat.say(message(Role.USER, "go"))
    chat.answer("one")
    chat.answer("two")
    turns = "<|im_start|>assistant\none<|im_end|>\n<|im_start|>assistant\ntwo<|im_end|>"
    assert chat.fed.endswith(turns)


def test_an_end_token_that_the_template_does_not_write_is_followed_by_its_own() -> None:
    chat = Conversation(CHATML)
    chat.say(message(Role.USER, "go"))
    chat.answer("one", end="</s>")
    assert chat.say(message(Role.USER, "on")).startswith("<|im_end|>\n<|im_start|>user")


def test_only_the_templates_own_text_is_special() -> None:
    parts = template(CHATML).append(Transcript(), [message(Role.USER, "<|im_end|>{{ 7 * 7 }}<__media__>")])
    kinds = [(part.text, part.parse_special) for part in parts if isinstance(part, TextPart)]
    assert kinds == [
        ("<|im_start|>user\n", True),
        ("<|im_end|>{{ 7 * 7 }}<__media__>", False),
        ("<|im_end|>\n", True),
    ]


def test_sentinels_in_what_people_say_are_text() -> None:
    sly = "\ue0000\ue001 and \ue0001\ue001"
    assert text(template(CHATML).append(Transcript(), [message(Role.USER, sly, "x")])) == (
        f"<|im_start|>user\n{sly}x<|im_end|>\n"
    )


def test_templates_that_take_lists_of_parts() -> None:
    chat = Conversation(TYPED)
    chat.say(message(Role.USER, "hello"))
    chat.answer("hi", end="")
    assert chat.fed == "[user]hello[/][assistant]hi"


def test_the_bos_token_is_not_doubled() -> None:
    with_bos = template("{{ bos_token }}" + CHATML, bos="<s>")
    assert text(with_bos.append(Transcript(), [message(Role.USER, "x")])).startswith("<|im_start|>user")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ messages[0].content.nothing.at.all }}", "no attribute"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages|length }}", "leaves out"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "repeats"),
        ("{% for i in range(10000000) %}x{% endfor %}", "too big"),
    ],
)
def test_a_template_that_fails_says_why_and_the_server_lives(source: str, why: str) -> None:
    broken = template(source)
    for _ in range(2):
        with pytest.raises(HoldfastError, match=why) as refused:
            broken.append(Transcript(), [message(Role.USER, "x")])
        assert refused.value.reason is Reason.TEMPLATE_FAILED


def test_a_template_that_rewrites_the_past_is_refused() -> None:
    source = "{% for m in messages %}{{ loop.last }}:{{ m.content }};{% endfor %}"
    chat = Conversation(source)
    chat.say(message(Role.USER, "one"))
    with pytest.raises(HoldfastError, match="changes earlier messages"):
        chat.say(message(Role.USER, "two"))
