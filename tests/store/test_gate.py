"""The gate between writers and collection."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_server.store.gate import Gate


class Visitor:
    """A task that stays inside until told to leave."""

    def __init__(self, gate: Gate, *, alone: bool = False) -> None:
        self.inside = False
        self._leave = asyncio.Event()
        self._door = gate.excluding() if alone else gate.sharing()
        self.task = asyncio.create_task(self._visit())

    async def _visit(self) -> None:
        async with self._door:
            self.inside = True
            await self._leave.wait()
        self.inside = False

    async def leave(self) -> None:
        self._leave.set()
        await self.task
        await settled()


async def settled() -> None:
    """Let every task run as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_writers_share_and_a_collector_waits_for_all() -> None:
    gate = Gate()
    first, second = Visitor(gate), Visitor(gate)
    await settled()
    collector = Visitor(gate, alone=True)
    await settled()
    assert (first.inside, second.inside, collector.inside) == (True, True, False)
    assert gate.shared
    await first.leave()
    assert not collector.inside
    await second.leave()
    assert collector.inside
    assert not gate.shared
    await collector.leave()


async def test_later_writers_wait_for_a_waiting_collector() -> None:
    gate = Gate()
    first = Visitor(gate)
    await settled()
    collector = Visitor(gate, alone=True)
    await settled()
    late = Visitor(gate)
    await settled()
    assert not late.inside
    await first.leave()
    assert (collector.inside, late.inside) == (True, False)
    await collector.leave()
    assert late.inside
    await late.leave()


async def test_collectors_go_one_by_one() -> None:
    gate = Gate()
    first, second = Visitor(gate, alone=True), Visitor(gate, alone=True)
    await settled()
    assert (first.inside, second.inside) == (True, False)
    await first.leave()
    assert second.inside
    await second.leave()


async def test_a_cancelled_collector_lets_writers_in() -> None:
    gate = Gate()
    first = Visitor(gate)
    await settled()
    collector = Visitor(gate, alone=True)
    await settled()
    late = Visitor(gate)
    await settled()
    collector.task.cancel()
    await settled()
    assert late.inside
    await first.leave()
    await late.leave()


async def test_a_failing_visitor_leaves() -> None:
    gate = Gate()
    for door in (gate.sharing, gate.excluding):
        with pytest.raises(ZeroDivisionError):
            async with door():
                _ = 1 // 0
    async with asyncio.timeout(5), gate.excluding():
        assert not gate.shared
