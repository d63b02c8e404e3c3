"""The ledger against a model that knows every cell."""

from __future__ import annotations

from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast_server.sessions.ledger import Ledger


class LedgerModel(RuleBasedStateMachine):
    """Sequences as lists of cell numbers, which are what they are."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.cells: dict[str, list[int]] = {}
        self.numbers = count()
        self.names = count()

    @rule(size=st.integers(0, 20))
    def open(self, size: int) -> None:
        name = str(next(self.names))
        self.cells[name] = [next(self.numbers) for _ in range(size)]
        self.ledger.set(name, size)

    @precondition(lambda self: self.cells)
    @rule(data=st.data(), more=st.integers(0, 9))
    def branch(self, data: st.DataObject, more: int) -> None:
        source = data.draw(st.sampled_from(sorted(self.cells)))
        shared = data.draw(st.integers(0, len(self.cells[source])))
        name = str(next(self.names))
        self.cells[name] = self.cells[source][:shared] + [next(self.numbers) for _ in range(more)]
        self.ledger.set(name, shared + more)
        self.ledger.share(name, source, shared)

    @precondition(lambda self: self.cells)
    @rule(data=st.data(), more=st.integers(1, 9))
    def grow(self, data: st.DataObject, more: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.cells)))
        self.cells[name] += [next(self.numbers) for _ in range(more)]
        self.ledger.set(name, len(self.cells[name]))

    @precondition(lambda self: self.cells)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.cells)))
        del self.cells[name]
        self.ledger.remove(name)

    @invariant()
    def counts_every_cell_once(self) -> None:
        distinct = {cell for cells in self.cells.values() for cell in cells}
        assert self.ledger.used == len(distinct)


LedgerModel.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLedger = LedgerModel.TestCase


def test_a_fork_counts_what_it_added() -> None:
    ledger = Ledger()
    ledger.set("trunk", 4000)
    for branch in range(8):
        ledger.set(f"b{branch}", 4010)
        ledger.share(f"b{branch}", "trunk", 4000)
    assert ledger.used == 4080
    ledger.remove("trunk")
    assert ledger.used == 4080
    for branch in range(8):
        ledger.remove(f"b{branch}")
    assert ledger.used == 0
