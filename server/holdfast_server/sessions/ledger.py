"""Who uses how many KV cells, when sequences share prefixes.

A sequence that shares the beginning of another counts only what lies behind it.
When the one it shares with goes, the cells stay, and one of the sharers takes
them over.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class _Account:
    cells: int
    source: _Account | None = None
    shared: int = 0
    """First cells that are the source's too; they are counted there."""


class Ledger:
    """Cells by key. Pure bookkeeping; the caller does to the cache what it says here."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}

    @property
    def used(self) -> int:
        """Cells in use, shared ones once."""
        return sum(account.cells - account.shared for account in self._accounts.values())

    def cells(self, key: str) -> int:
        """Cells of the sequence, shared ones too; 0 for an unknown key."""
        account = self._accounts.get(key)
        return account.cells if account else 0

    def set(self, key: str, cells: int) -> None:
        """The sequence has, or has room for, this many cells; those it shares are never fewer."""
        account = self._accounts.setdefault(key, _Account(0))
        account.cells = max(cells, account.shared, *(a.shared for a in self._sharers(account)), 0)

    def share(self, key: str, source: str, cells: int) -> None:
        """The first `cells` cells of `key` are those of `source`, which has at least as many."""
        account, origin = self._accounts[key], self._accounts[source]
        account.source, account.shared = origin, min(cells, origin.cells, account.cells)

    def keep_shared(self, key: str, cells: int) -> None:
        """No more than the first `cells` cells came to be shared; the rest is the sequence's own."""
        account = self._accounts[key]
        account.shared = min(account.shared, cells)

    def remove(self, key: str) -> None:
        """The sequence is gone; a sharer takes over the cells that it used."""
        account = self._accounts.pop(key, None)
        if account is None:
            return
        heirs = sorted(self._sharers(account), key=lambda heir: heir.shared, reverse=True)
        for heir in heirs[:1]:
            heir.source, heir.shared = account.source, min(heir.shared, account.shared)
        for other in heirs[1:]:
            other.source, other.shared = heirs[0], min(other.shared, heirs[0].cells)

    def _sharers(self, account: _Account) -> list[_Account]:
        return [other for other in self._accounts.values() if other.source is account]
