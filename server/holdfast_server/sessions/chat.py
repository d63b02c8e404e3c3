"""The model's chat template, rendered a turn at a time.

History that is in the cache is never rendered into it again: an append renders
the conversation with and without the new messages and takes the difference.
What people said never passes through the template. Each part is stood in for
by a sentinel, and the text between the sentinels is the template's own; so
special tokens or media markers in a message stay plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.sessions.journal import Entry, Kind, Message, Part, TextPart
from holdfast_server.sessions.session import Role

# Private-use characters that no template looks for; `number` counts parts over the conversation.
_SENTINEL = re.compile("\ue000(\\d+)\ue001")


def _sentinel(number: int) -> str:
    return f"\ue000{number}\ue001"


class Transcript:
    """The messages of a chat-format session, and whether its last one is closed."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.open_end: str | None = None
        """None: closed. Else the last message was generated and ends in this end-of-turn text, or in none."""

    def add(self, entry: Entry) -> None:
        """Takes over what a journal entry said."""
        if entry.kind is Kind.APPEND:
            self.messages.extend(entry.messages)
            self.open_end = None
            return
        if self.unfinished and self.messages:
            last = self.messages.pop()
            self.messages.append(Message(last.role, last.parts + entry.messages[0].parts))
        else:
            self.messages.extend(entry.messages)
        self.open_end = entry.end

    @property
    def unfinished(self) -> bool:
        """Whether the last message is the model's and it has not ended its turn."""
        return self.open_end == ""


class ChatTemplate:
    """One model's template. Any thread; rendering is pure."""

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
        self._bos = bos
        self._eos = eos
        self._fault = ""
        try:
            self._template = environment.from_string(source)
            self._typed = self._wants_typed_content()
        # A template is a program from a model file: whatever it raises must not stop the server.
        except Exception as error:  # noqa: BLE001
            self._fault = str(error)

    def append(self, transcript: Transcript, new: Sequence[Message]) -> list[Part]:
        """What to feed for new messages: the template's own text (special) and the messages' parts.

        Raises HoldfastError TEMPLATE_FAILED.
        """
        before = self._render(transcript.messages, prompt=False) if transcript.messages else ""
        after = self._render([*transcript.messages, *new], prompt=False)
        added = self._difference(before, after)
        parts = [part for message in new for part in message.parts]
        return self._split(self._closing(transcript, before), []) + self._split(
            self._without_bos(added, transcript), parts, first=_count_parts(transcript.messages)
        )

    def prompt(self, transcript: Transcript) -> list[Part]:
        """What to feed before the model speaks; nothing where it goes on with its own message.

        Raises HoldfastError TEMPLATE_FAILED.
        """
        if transcript.unfinished:
            return []
        before = self._render(transcript.messages, prompt=False)
        added = self._difference(before, self._render(transcript.messages, prompt=True))
        return self._split(self._closing(transcript, before) + added, [])

    def _closing(self, transcript: Transcript, rendered: str) -> str:
        """The template's text behind a generated last message that was not fed yet."""
        if transcript.open_end is None:
            return ""
        last = _sentinel(_count_parts(transcript.messages) - 1)
        _, found, closing = rendered.rpartition(last)
        if not found:
            raise _failed("it leaves out the model's own message")
        return closing.removeprefix(transcript.open_end)

    def _difference(self, before: str, after: str) -> str:
        if not after.startswith(before):
            raise _failed("it changes earlier messages when later ones are added; use a raw session")
        return after[len(before) :]

    def _without_bos(self, text: str, transcript: Transcript) -> str:
        """Sessions begin with the BOS token already, where the model wants one."""
        return text.removeprefix(self._bos) if self._bos and not transcript.messages else text

    def _split(self, text: str, parts: Sequence[Part], *, first: int = 0) -> list[Part]:
        """Puts the parts back in place of their sentinels; raises unless each stands there once, in order."""
        pieces = _SENTINEL.split(text)
        numbers = [int(number) for number in pieces[1::2]]
        if numbers != list(range(first, first + len(parts))):
            raise _failed("it leaves out, repeats or reorders messages; use a raw session")
        result: list[Part] = []
        for index, piece in enumerate(pieces[::2]):
            if piece:
                result.append(TextPart(piece, parse_special=True))
            if index < len(parts):
                result.append(parts[index])
        return result

    def _render(self, messages: Sequence[Message], *, prompt: bool) -> str:
        if self._fault:
            raise _failed(self._fault)
        number = 0
        data = []
        for message in messages:
            content = "".join(_sentinel(number + i) for i in range(len(message.parts)))
            number += len(message.parts)
            data.append({"role": str(message.role), "content": self._content(content, typed=self._typed)})
        try:
            return self._template.render(
                messages=data, add_generation_prompt=prompt, bos_token=self._bos, eos_token=self._eos
            )
        # As above: a sandboxed program may raise anything.
        except Exception as error:
            raise _failed(str(error)) from error

    def _content(self, text: str, *, typed: bool) -> Any:
        return [{"type": "text", "text": text}] if typed else text

    def _wants_typed_content(self) -> bool:
        """Whether the template shows a message only when its content is a list of parts."""
        return not self._shows(typed=False) and self._shows(typed=True)

    def _shows(self, *, typed: bool) -> bool:
        message = {"role": str(Role.USER), "content": self._content(_sentinel(0), typed=typed)}
        try:
            text = self._template.render(
                messages=[message], add_generation_prompt=False, bos_token=self._bos, eos_token=self._eos
            )
        except (jinja2.TemplateError, TypeError, ValueError, AttributeError):
            return False
        # A list printed as text also holds the sentinel, but in quotes.
        return _sentinel(0) in text and f"'{_sentinel(0)}'" not in text


def _count_parts(messages: Sequence[Message]) -> int:
    return sum(len(message.parts) for message in messages)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _failed(why: str) -> HoldfastError:
    return HoldfastError(Reason.TEMPLATE_FAILED, f"the model's chat template failed: {why[:500]}")
