"""The whole algebra of sessions against a model of a few lists (hypothesis, on a real server)."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import holdfast
from holdfast import RestoreMode
from holdfast_server.app import Server
from holdfast_server.config import Settings
from models import tiny

Told = list[tuple[str, int]]
"""What a session was told and said, and its token count after each."""

_names = itertools.count()


class Background:
    """A server on a loop of its own thread, for clients that wait."""

    def __init__(self, server: Server) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.server = server
        self.run(server.start())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def close(self) -> None:
        self.run(self.server.drain(0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Algebra(RuleBasedStateMachine):
    """Two slots only, so that sessions come and go all the time."""

    background: Background
    folder: Path

    @initialize()
    def connect(self) -> None:
        self.client = holdfast.Client(f"127.0.0.1:{self.background.server.port}")
        self.sessions: dict[str, Told] = {}
        self.checkpoints: dict[str, tuple[str, Told]] = {}
        self.create()

    def teardown(self) -> None:
        for name in self.sessions:
            self.client.delete_session(name)
        for name in self.checkpoints:
            self.client.delete_checkpoint(name)
        self.client.close()

    def pick(self, data: st.DataObject, names: dict[str, Any]) -> str:
        return data.draw(st.sampled_from(sorted(names)))

    @rule()
    def create(self) -> None:
        name = f"s{next(_names)}"
        self.client.create_session(name, chat_format="raw")
        self.sessions[name] = []

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), words=st.text(st.sampled_from("kelp "), min_size=1, max_size=40))
    def append(self, data: st.DataObject, words: str) -> None:
        name = self.pick(data, self.sessions)
        session = self.client.session(name)
        if session.info.token_count < 600:
            session.append(words)
            self.sessions[name].append((words, session.info.token_count))

    @precondition(lambda self: any(self.sessions.values()))
    @rule(data=st.data(), count=st.integers(1, 6))
    def generate(self, data: st.DataObject, count: int) -> None:
        name = self.pick(data, {name: told for name, told in self.sessions.items() if told})
        session = self.client.session(name)
        done = session.complete(max_tokens=count, temperature=0.0)
        usage = done.finish.usage
        assert usage.prompt_tokens == usage.cached_tokens + usage.prefilled_tokens + usage.restored_tokens + 1
        self.sessions[name].append((done.text, session.info.token_count))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def checkpoint(self, data: st.DataObject) -> None:
        name, kept = self.pick(data, self.sessions), f"c{next(_names)}"
        self.client.session(name).checkpoint(kept)
        self.checkpoints[kept] = (name, list(self.sessions[name]))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        name, branch = self.pick(data, self.sessions), f"f{next(_names)}"
        revision = data.draw(st.integers(0, len(self.sessions[name])))
        self.client.session(name).fork(branch, revision=revision)
        self.sessions[branch] = self.sessions[name][:revision]

    @precondition(lambda self: self.checkpoints)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        kept, name = self.pick(data, self.checkpoints), f"r{next(_names)}"
        restored = self.client.restore(kept, name)
        assert restored.mode is RestoreMode.RESTORED
        assert restored.usage.prefilled_tokens == 0
        self.sessions[name] = list(self.checkpoints[kept][1])

    @precondition(lambda self: any(of in self.sessions for of, _ in self.checkpoints.values()))
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        own = {kept: of for kept, (of, _) in self.checkpoints.items() if of in self.sessions}
        kept = self.pick(data, own)
        told = self.checkpoints[kept][1]
        if self.sessions[own[kept]][: len(told)] != told:
            return  # it was rolled back behind this checkpoint and has gone another way
        try:
            result = self.client.session(own[kept]).rollback(kept)
        except holdfast.PreconditionError as error:
            assert error.reason == "NOT_OWN_CHECKPOINT"
            return
        assert (result.mode, result.usage.prefilled_tokens) == (RestoreMode.RESTORED, 0)
        self.sessions[own[kept]] = list(told)

    @precondition(lambda self: self.checkpoints)
    @rule(data=st.data())
    def travel(self, data: st.DataObject) -> None:
        kept, copy = self.pick(data, self.checkpoints), f"i{next(_names)}"
        file = self.folder / f"{copy}.hf"
        self.client.export_checkpoint(kept, file)
        self.client.import_checkpoint(file, copy)
        file.unlink()
        self.checkpoints[copy] = ("nobody", list(self.checkpoints[kept][1]))

    @precondition(lambda self: len(self.sessions) > 3)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = self.pick(data, self.sessions)
        self.client.delete_session(name)
        del self.sessions[name]

    @precondition(lambda self: len(self.checkpoints) > 3)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        kept = self.pick(data, self.checkpoints)
        self.client.delete_checkpoint(kept)
        del self.checkpoints[kept]

    @rule()
    def collect(self) -> None:
        self.background.run(self.background.server.sessions.store.collect())

    @invariant()
    def everything_is_as_told(self) -> None:
        found = {info.session_id: info for info in self.client.list_sessions()}
        assert found.keys() == self.sessions.keys()
        for name, told in self.sessions.items():
            tokens = told[-1][1] if told else 0
            assert (found[name].revision, found[name].token_count) == (len(told), tokens)
        assert {kept.checkpoint_id for kept in self.client.list_checkpoints()} == self.checkpoints.keys()


@pytest.fixture
def background(models_dir: Path, tmp_path: Path) -> Iterator[Background]:
    made = tiny.make("llama", models_dir)
    running = Background(
        Server(
            Settings(
                model=made.model, data_dir=tmp_path / "data", ctx_size=2048, parallel=2, threads=1, port=0
            )
        )
    )
    yield running
    running.close()


@pytest.mark.timeout(600)
def test_sessions_behave_as_lists_do(background: Background, tmp_path: Path) -> None:
    machine: Callable[..., Any] = type("On", (Algebra,), {"background": background, "folder": tmp_path})
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        machine,  # type: ignore[arg-type]
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
