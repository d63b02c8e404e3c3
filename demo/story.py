"""The story: a conversation about pictures survives kill -9, and goes on as if nothing had happened.

To tell another one, change what is said below.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from demo.picture import Shape, draw
from demo.server import ServerFailedError, ServerProcess
from demo.transcript import Transcript, size
from holdfast import CheckpointInfo, Client, Completion, HoldfastError, RestoreMode, Session

SERVING_SECONDS = 120.0
TOKENS = 40


@dataclass(frozen=True)
class Turn:
    """What is said, a picture that comes with it, and a word that a right answer holds."""

    words: str
    answer: str
    picture: str = ""


PICTURES = {
    "first.jpg": [Shape("circle", "red", (60, 60, 180, 180)), Shape("square", "blue", (280, 160, 400, 280))],
    "second.jpg": [Shape("circle", "green", (260, 100, 400, 240))],
}
BEFORE = (
    Turn("My name is Ada.", "Ada"),
    Turn("What colour is the circle?", "red", "first.jpg"),
    Turn("How many shapes are there?", "two"),
    Turn("What colour is the circle?", "green", "second.jpg"),
)
AFTER = (
    Turn("What is my name?", "Ada"),
    Turn("How many pictures have you seen?", "two"),
)


class BrokenPromiseError(Exception):
    """The restored session is not what it was."""


@dataclass(frozen=True)
class Before:
    """What is known when the server dies."""

    checkpoint: CheckpointInfo
    twin: list[Completion]


def main() -> int:
    """Tells the story with Limpet, the model that comes along; the exit status."""
    transcript = Transcript()
    try:
        with tempfile.TemporaryDirectory(prefix="holdfast-demo-") as folder:
            tell(transcript, ["-c", "4096", "-np", "2", "--autosave", "off"], Path(folder))
    except (BrokenPromiseError, HoldfastError, ServerFailedError, OSError) as error:
        transcript.verdict(f"demo: FAILED: {error}", good=False)
        return 1
    except KeyboardInterrupt:
        transcript.verdict("demo: FAILED: interrupted", good=False)
        return 130
    transcript.verdict("demo: ok", good=True)
    return 0


def tell(transcript: Transcript, arguments: list[str], folder: Path) -> None:
    """The whole story. Raises BrokenPromiseError when it does not end well."""
    for name, shapes in PICTURES.items():
        draw(folder / name, *shapes)
    transcript.title("Holdfast: a session with pictures in it, restored after kill -9")
    data = ["--data-dir", str(folder / "data")]
    with ServerProcess([*arguments, *data], folder / "server.log") as server:
        serve(transcript, server, "The server starts")
        with Client(server.address) as client:
            before = until_the_crash(transcript, client, folder)
        with transcript.step("The server is killed with SIGKILL"):
            server.kill()
        serve(transcript, server, "It starts again on the same data")
        with Client(server.address) as client:
            after_the_crash(transcript, client, before, folder)


def serve(transcript: Transcript, server: ServerProcess, heading: str) -> None:
    """Starts the server, and waits until it says SERVING."""
    with transcript.step(heading) as cost:
        pid = server.start()
        with Client(server.address) as client:
            client.wait_until_serving(SERVING_SECONDS)
            info = client.server_info()
        cost.add(
            None, f"process {pid}", f"model {info.model.name}", f"llama-cpp-python {info.llama_cpp_version}"
        )


def until_the_crash(transcript: Transcript, client: Client, folder: Path) -> Before:
    """A chat about pictures, a checkpoint in the middle, and how it went on: the twin."""
    with transcript.step("A chat session is created"):
        session = client.create_session("shore", temperature=0.0, max_tokens=TOKENS)
    for turn in BEFORE:
        say(transcript, session, turn, folder)
    with transcript.step("A checkpoint") as cost:
        checkpoint = session.checkpoint("low-tide")
        cost.add(checkpoint.usage, f"{checkpoint.token_count:,} tokens saved")
    transcript.chapter("The conversation goes on: the twin")
    return Before(checkpoint, [say(transcript, session, turn, folder) for turn in AFTER])


def after_the_crash(transcript: Transcript, client: Client, before: Before, folder: Path) -> None:
    """The checkpoint in a new session, and the same continuation."""
    with transcript.step("The checkpoint is restored into a new session") as cost:
        restored = client.restore(before.checkpoint, "shore-again")
        usage = restored.usage
        cost.add(usage, str(restored.mode).upper(), f"{usage.prefilled_tokens} tokens prefilled")
    require(
        restored.mode is RestoreMode.RESTORED, f"the session was {restored.mode}: {restored.rebuild_reason}"
    )
    require(usage.prefilled_tokens == 0, f"the restore prefilled {usage.prefilled_tokens} tokens")
    transcript.chapter("The conversation goes on from there, in the new session")
    again = [say(transcript, restored.session, turn, folder) for turn in AFTER]
    with transcript.step("The two continuations are compared") as cost:
        for was, now in zip(before.twin, again, strict=True):
            compare(was, now)
        cost.add(None, f"{sum(len(one.token_ids) for one in again)} tokens, all equal")


def say(transcript: Transcript, session: Session, turn: Turn, folder: Path) -> Completion:
    """One turn: what is said, durable before it is answered, and the answer, which must be right."""
    parts: list[Path | str] = [folder / turn.picture, turn.words] if turn.picture else [turn.words]
    shown = f"[{turn.picture}, {size((folder / turn.picture).stat().st_size)}] " if turn.picture else ""
    with transcript.step(f"{shown}{turn.words}") as cost:
        session.append(*parts)
        completion = session.complete()
        transcript.quote("Limpet", completion.text)
        cost.add(completion.finish.usage)
    right = turn.answer.lower() in completion.text.lower()
    require(right, f"{turn.words!r} was answered {completion.text!r}, not {turn.answer!r}")
    return completion


def compare(twin: Completion, again: Completion) -> None:
    """Token for token, and prefill for prefill."""
    require(bool(twin.token_ids), "the twin generated nothing to compare with")
    require(twin.token_ids == again.token_ids, "the restored session continued differently")
    was, now = twin.finish.usage.prefilled_tokens, again.finish.usage.prefilled_tokens
    require(was == now, f"the next Generate prefilled {now} tokens, the twin's {was}")


def require(kept: bool, otherwise: str) -> None:
    if not kept:
        raise BrokenPromiseError(otherwise)
