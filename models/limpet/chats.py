"""One way to talk to Limpet, through llama.cpp alone or through Holdfast's service."""

from __future__ import annotations

from typing import Any, Protocol

from jinja2.sandbox import ImmutableSandboxedEnvironment
from PIL import Image

from .engine import MARKER, Engine

Part = str | Image.Image
MOST_TOKENS = 64
"""Of an answer; Limpet's own are shorter."""


class Chat(Protocol):
    """A conversation. `say` adds a user's message and returns the assistant's answer, which stays in it."""

    @property
    def length(self) -> int:
        """Positions the conversation has taken so far."""

    def say(self, parts: list[Part]) -> str: ...

    def close(self) -> None: ...


class Line(Protocol):
    """Something that can open conversations, one at a time."""

    def open(self, system: str | None = None) -> Chat: ...

    def close(self) -> None: ...


class LlamaLine:
    """Conversations straight on llama.cpp, in this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._template = ImmutableSandboxedEnvironment().from_string(engine.template())

    def open(self, system: str | None = None) -> LlamaChat:
        self._engine.reset()
        return LlamaChat(self._engine, self._template, system)

    def close(self) -> None:
        self._engine.close()


class LlamaChat:
    """Renders the whole conversation each time and decodes what is new of it."""

    def __init__(self, engine: Engine, template: Any, system: str | None) -> None:
        # template: a jinja2.Template, which mypy sees as Any where jinja2 is not installed.
        self._engine, self._template, self._fed = engine, template, ""
        self._messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []

    @property
    def length(self) -> int:
        return self._engine.position

    def say(self, parts: list[Part]) -> str:
        pictures = [part for part in parts if not isinstance(part, str)]
        content = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in parts
        ]
        self._messages.append({"role": "user", "content": content})
        rendered = self._template.render(messages=self._messages, add_generation_prompt=True)
        new = rendered[len(self._fed) :]
        assert rendered.startswith(self._fed) and new.count(MARKER) == len(pictures)
        self._engine.feed(new, pictures)
        answer = self._generate()
        self._messages.append({"role": "assistant", "content": answer})
        self._fed = rendered + answer
        return answer

    def close(self) -> None:
        self._engine.reset()

    def _generate(self) -> str:
        """Greedy, until the end of the message."""
        said = b""
        for _ in range(MOST_TOKENS):
            token = int(self._engine.logits().argmax())
            if token == self._engine.end:
                break
            said += self._engine.piece(token)
            self._engine.feed_token(token)
        return said.decode("utf-8", "replace")
