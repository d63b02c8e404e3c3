"""The synchronous face: the same methods, waited for on a thread that runs the asynchronous ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Self, Unpack

from holdfast._bridge import Bridge, next_item, sync, sync_iterator
from holdfast._client import DEFAULT_ADDRESS, AsyncClient
from holdfast._generation import AsyncGeneration
from holdfast._session import AsyncSession, describe
from holdfast._types import (
    CheckpointInfo,
    Delta,
    Finish,
    RestoreResult,
    SamplingOptions,
    SessionInfo,
)


class Generation:
    """Pieces of text as the model makes them; afterwards the whole and how it ended.

        for piece in session.generate(max_tokens=100):
            print(piece, end="")

    The call starts when the first piece is asked for, and runs once. Leaving
    the loop early cancels it: the server keeps what it had streamed. To be
    certain on interpreters that do not count references, use `with`.
    """

    def __init__(self, bridge: Bridge, generation: AsyncGeneration) -> None:
        self._bridge = bridge
        self._async = generation

    @property
    def text(self) -> str:
        """What has been generated so far; everything once the iteration is over."""
        return self._async.text

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The tokens sampled so far."""
        return self._async.token_ids

    @property
    def finish(self) -> Finish:
        """How it ended. Raises RuntimeError before the iteration is over, and after a cancellation."""
        return self._async.finish

    @property
    def done(self) -> bool:
        """Whether it is over: finished, failed or cancelled."""
        return self._async.done

    complete = sync(AsyncGeneration.complete)

    def cancel(self) -> None:
        """Stops it. The server journals the tokens it had streamed. Does nothing when it is over."""
        if not self.done:
            self._bridge.call_soon(self._async.cancel)

    def __iter__(self) -> Iterator[Delta]:
        return _Loop(self)

    def __next__(self) -> Delta:
        if (piece := self._bridge.run(next_item(self._async))) is None:
            raise StopIteration
        return piece

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __repr__(self) -> str:
        return repr(self._async).replace("AsyncGeneration", "Generation", 1)


class _Loop:
    """One `for` over a generation: when the loop lets go of it, the call is cancelled."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation

    def __iter__(self) -> _Loop:
        return self

    def __next__(self) -> Delta:
        return next(self._generation)

    def __del__(self) -> None:
        self._generation.cancel()


class Session:
    """An append-only conversation on the server; see AsyncSession, which it puts a face on.

    Made by a client; not for use from several threads at once.
    """

    def __init__(self, bridge: Bridge, session: AsyncSession) -> None:
        self._bridge = bridge
        self._async = session

    @property
    def id(self) -> str:
        """The session's id."""
        return self._async.id

    @property
    def info(self) -> SessionInfo:
        """The session as the server last described it."""
        return self._async.info

    @property
    def revision(self) -> int:
        """The revision this handle last saw."""
        return self._async.revision

    @property
    def check_revision(self) -> bool:
        """Whether calls fail when someone else has written; True unless set to False."""
        return self._async.check_revision

    @check_revision.setter
    def check_revision(self, check: bool) -> None:
        self._async.check_revision = check

    append = sync(AsyncSession.append)
    complete = sync(AsyncSession.complete)
    checkpoint = sync(AsyncSession.checkpoint)
    refresh = sync(AsyncSession.refresh)
    update = sync(AsyncSession.update)
    delete = sync(AsyncSession.delete)

    def generate(self, *, timeout: float | None = None, **sampling: Unpack[SamplingOptions]) -> Generation:
        """Starts a generation when iterated over: `for piece in session.generate(): ...`.

        `sampling` overrides the session's defaults; `timeout` is in seconds for
        the whole of it. Iterating raises HoldfastError.
        """
        return Generation(self._bridge, self._async.generate(timeout=timeout, **sampling))

    def fork(
        self,
        session_id: str = "",
        *,
        revision: int | None = None,
        labels: Mapping[str, str] | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Session:
        """A branch of the session, as it is or as it was at `revision`; copies nothing.

        Empty id: the server chooses. `sampling` overrides the session's
        defaults: a `seed` of its own makes a branch sample differently. Raises
        HoldfastError.
        """
        branch = self._async.fork(session_id, revision=revision, labels=labels, **sampling)
        return Session(self._bridge, self._bridge.run(branch))

    def rollback(
        self, checkpoint: CheckpointInfo | str, *, timeout: float | None = None
    ) -> RestoreResult[Session]:
        """Returns to a checkpoint of this session; what came after is dropped. Raises HoldfastError."""
        result = self._bridge.run(self._async.rollback(checkpoint, timeout=timeout))
        return _with_session(result, self)

    def __repr__(self) -> str:
        return f"<holdfast.Session {describe(self.info)}>"


class Client:
    """A connection to a Holdfast server, for programs without an event loop.

        with Client() as client:
            session = client.create_session()
            session.append("What is this?", Path("kelp.jpg"))
            for piece in session.generate():
                print(piece, end="")

    As AsyncClient, whose methods it has; they run on a thread of the client's
    own, so that it works in notebooks too. Ctrl-C cancels the call. Safe for
    use from many threads.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout: float | None = 60.0) -> None:
        self._bridge = Bridge()
        self._async = AsyncClient(address, timeout=timeout)

    @property
    def address(self) -> str:
        """Where the server listens."""
        return self._async.address

    def create_session(
        self,
        session_id: str = "",
        *,
        chat_format: str | None = None,
        labels: Mapping[str, str] | None = None,
        ttl: timedelta | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Session:
        """Creates an empty session; see AsyncClient.create_session. Raises HoldfastError."""
        create = self._async.create_session(
            session_id, chat_format=chat_format, labels=labels, ttl=ttl, **sampling
        )
        return Session(self._bridge, self._bridge.run(create))

    def session(self, session_id: str) -> Session:
        """A handle for a session that exists. Raises NotFoundError where it does not."""
        return Session(self._bridge, self._bridge.run(self._async.session(session_id)))

    def restore(
        self, checkpoint: CheckpointInfo | str, session_id: str = "", *, timeout: float | None = None
    ) -> RestoreResult[Session]:
        """Brings a checkpoint back as a new session; see AsyncClient.restore. Raises HoldfastError."""
        result = self._bridge.run(self._async.restore(checkpoint, session_id, timeout=timeout))
        return _with_session(result, Session(self._bridge, result.session))

    list_sessions = sync_iterator(AsyncClient.list_sessions)
    delete_session = sync(AsyncClient.delete_session)
    get_checkpoint = sync(AsyncClient.get_checkpoint)
    list_checkpoints = sync_iterator(AsyncClient.list_checkpoints)
    update_checkpoint = sync(AsyncClient.update_checkpoint)
    delete_checkpoint = sync(AsyncClient.delete_checkpoint)
    export_checkpoint = sync(AsyncClient.export_checkpoint)
    import_checkpoint = sync(AsyncClient.import_checkpoint)
    server_info = sync(AsyncClient.server_info)
    health = sync(AsyncClient.health)
    wait_until_serving = sync(AsyncClient.wait_until_serving)

    def close(self) -> None:
        """Cancels what runs, closes the connection and ends the thread. Closing twice is fine."""
        if not self._bridge.closed:
            self._bridge.run(self._async.close())
            self._bridge.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self._async).replace("AsyncClient", "Client", 1)


def _with_session(result: RestoreResult[AsyncSession], session: Session) -> RestoreResult[Session]:
    return RestoreResult(
        session=session, mode=result.mode, rebuild_reason=result.rebuild_reason, usage=result.usage
    )
