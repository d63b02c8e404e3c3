"""The synchronous face: the same methods, no event loop."""

from __future__ import annotations

import gc
import inspect
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import holdfast
from holdfast import AsyncClient, AsyncGeneration, AsyncSession, Client, Generation, RestoreMode, Session
from tests.client.conftest import Fake

FACES: list[tuple[type[Any], type[Any]]] = [
    (AsyncClient, Client),
    (AsyncSession, Session),
    (AsyncGeneration, Generation),
]
RENAMED = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
}


def public(cls: type[Any]) -> dict[str, Any]:
    """What a class offers, synchronous names for asynchronous protocols."""
    return {
        RENAMED.get(name, name): member
        for name, member in vars(cls).items()
        if not name.startswith("_") or name in RENAMED or name in RENAMED.values()
    }


@pytest.mark.parametrize(("asynchronous", "synchronous"), FACES)
def test_both_faces_have_the_same_methods(asynchronous: type[Any], synchronous: type[Any]) -> None:
    attributes = {"check_revision"} if synchronous is Session else set()
    assert set(public(synchronous)) - attributes == set(public(asynchronous))


@pytest.mark.parametrize(("asynchronous", "synchronous"), FACES)
def test_both_faces_take_the_same_arguments(asynchronous: type[Any], synchronous: type[Any]) -> None:
    faces = public(synchronous)
    for name, method in public(asynchronous).items():
        if inspect.isfunction(method):
            parameters = inspect.signature(faces[name]).parameters
            assert parameters == inspect.signature(method).parameters, name
            assert not inspect.iscoroutinefunction(faces[name]), name


def test_both_clients_are_made_alike() -> None:
    assert inspect.signature(Client) == inspect.signature(AsyncClient)


def test_a_conversation(fake_elsewhere: Fake, sync_client: Client) -> None:
    session = sync_client.create_session("alice", labels={"a": "b"}, seed=1)
    assert session.info.labels == {"a": "b"}
    assert session.append(holdfast.system("Be brief."), "Hello").prompt_tokens == 7
    generation = session.generate(max_tokens=3)
    assert [str(piece) for piece in generation] == ["Hold", "", "fast."]
    assert generation.done
    assert (generation.text, generation.token_ids) == ("Holdfast.", (0, 1, 2))
    assert generation.finish.session.revision == session.revision == 2
    assert session.complete().text == "Holdfast."
    checkpoint = session.checkpoint("low-tide")
    rolled_back = session.rollback(checkpoint)
    assert rolled_back.session is session
    restored = sync_client.restore(checkpoint, "again")
    assert isinstance(restored.session, Session)
    assert restored.mode is RestoreMode.REBUILT
    assert [s.session_id for s in sync_client.list_sessions(page_size=1)] == ["again", "alice"]
    assert [c.checkpoint_id for c in sync_client.list_checkpoints()] == ["low-tide"]
    assert sync_client.get_checkpoint("low-tide") == checkpoint
    assert sync_client.session("again").refresh().session_id == "again"
    session.delete()
    sync_client.delete_session("again")
    sync_client.delete_checkpoint(checkpoint)
    assert not fake_elsewhere.service.sessions
    assert not fake_elsewhere.service.checkpoints


def test_what_the_server_is(sync_client: Client) -> None:
    assert sync_client.server_info().model.name == "fake"
    assert sync_client.health() is holdfast.ServingStatus.SERVING
    sync_client.wait_until_serving(10)


def test_check_revision_reaches_the_calls(sync_client: Client) -> None:
    session = sync_client.create_session("alice")
    sync_client.session("alice").append("mine")
    with pytest.raises(holdfast.StaleRevisionError):
        session.append("yours")
    assert session.check_revision
    session.check_revision = False
    session.append("yours")


def cancelled(fake: Fake) -> bool:
    """Waits until the fake's Generate has been cancelled."""
    return fake.run(fake.service.cancelled.wait())


def test_leaving_the_loop_early_cancels_the_call(fake_elsewhere: Fake, sync_client: Client) -> None:
    fake_elsewhere.service.hang_after = 1
    session = sync_client.create_session()
    generation = session.generate()
    for _ in generation:
        break
    assert cancelled(fake_elsewhere)
    session.append("more")
    assert generation.done


def test_leaving_the_with_block_cancels_the_call(fake_elsewhere: Fake, sync_client: Client) -> None:
    fake_elsewhere.service.hang_after = 1
    with sync_client.create_session().generate() as generation:
        assert next(generation) == "Hold"
        assert repr(generation) == "<holdfast.Generation running, 1 tokens: 'Hold'>"
    assert cancelled(fake_elsewhere)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A process that a shell started in the background ignores SIGINT, and Python then does too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_cancels_the_call(fake_elsewhere: Fake, sync_client: Client) -> None:
    """As Ctrl-C does: the signal arrives while the main thread waits for the second piece."""
    fake_elsewhere.service.hang_after = 1
    session = sync_client.create_session()
    main = threading.get_ident()

    def interrupt() -> None:
        fake_elsewhere.run(fake_elsewhere.service.hanging.wait())
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        session.complete()
    thread.join()
    assert cancelled(fake_elsewhere)
    session.append("it can be used again")


def test_a_list_left_early(sync_client: Client) -> None:
    for _ in range(3):
        sync_client.create_session()
    for _ in sync_client.list_sessions(page_size=1):
        break
    assert len(list(sync_client.list_sessions())) == 3


async def test_it_works_beside_a_running_event_loop(fake_elsewhere: Fake) -> None:
    """As in a notebook: the caller's thread runs a loop of its own."""
    with Client(fake_elsewhere.address) as client:
        assert client.create_session().complete().text == "Holdfast."


def test_many_threads(sync_client: Client) -> None:
    def work(number: int) -> None:
        assert sync_client.create_session(f"s-{number}").complete().text == "Holdfast."

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(sync_client.list_sessions(page_size=3))) == 8


def test_closing_ends_the_thread(fake_elsewhere: Fake) -> None:
    client = Client(fake_elsewhere.address)
    assert not holdfast_threads()
    client.health()
    assert len(holdfast_threads()) == 1
    session = client.create_session()
    client.close()
    client.close()
    assert not holdfast_threads()
    assert repr(client) == f"<holdfast.Client {fake_elsewhere.address} closed>"
    with pytest.raises(RuntimeError, match="closed"):
        session.append("x")
    with pytest.raises(RuntimeError, match="closed"):
        list(client.list_sessions())


def test_a_client_never_used_closes() -> None:
    Client().close()
    assert not holdfast_threads()


def test_a_forgotten_client_stops_its_thread(fake_elsewhere: Fake) -> None:
    client = Client(fake_elsewhere.address)
    session = client.create_session()
    del client
    assert session.complete().text == "Holdfast."
    del session
    gc.collect()
    assert not holdfast_threads()


def test_a_program_that_forgets_to_close_ends_silently(fake_elsewhere: Fake) -> None:
    fake_elsewhere.service.hang_after = 1
    program = f"""
import holdfast
client = holdfast.Client({fake_elsewhere.address!r})
generation = client.create_session().generate()
print(next(generation))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hold\n", "")


def holdfast_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "holdfast"]
