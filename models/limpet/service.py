"""Conversations with Limpet through Holdfast's service, as any client has them."""

from __future__ import annotations

import holdfast

from .chats import MOST_TOKENS, Part


class HoldfastLine:
    """A server at "HOST:PORT" that serves Limpet."""

    def __init__(self, address: str) -> None:
        self._client = holdfast.Client(address)

    def open(self, system: str | None = None) -> HoldfastChat:
        return HoldfastChat(self._client.create_session(temperature=0.0, max_tokens=MOST_TOKENS), system)

    def close(self) -> None:
        self._client.close()


class HoldfastChat:
    """One session, deleted when closed."""

    def __init__(self, session: holdfast.Session, system: str | None) -> None:
        self._session = session
        self._first = [holdfast.system(system)] if system else []

    @property
    def length(self) -> int:
        return self._session.info.position

    def say(self, parts: list[Part]) -> str:
        self._session.append(*self._first, *parts)
        self._first = []
        return self._session.complete().text

    def close(self) -> None:
        self._session.delete()
