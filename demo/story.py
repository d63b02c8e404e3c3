"""The story: a conversation about a picture survives kill -9, and goes on as if nothing had happened.

To tell another one, change what is said below, or the model that `main` makes.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import holdfast
from demo.picture import draw
from demo.server import ServerFailedError, ServerProcess
from demo.transcript import Transcript, size
from holdfast import CheckpointInfo, Client, Completion, HoldfastError, RestoreMode, Session
from models import tiny

SYSTEM = "You look at pictures of the shore and answer briefly."
QUESTION = "What holds fast in this picture?"
FOLLOW_UP = "And when the storm comes?"
TOKENS = 32
SERVING_SECONDS = 120.0


class BrokenPromiseError(Exception):
    """The restored session is not what it was."""


@dataclass(frozen=True)
class Before:
    """What is known when the server dies."""

    checkpoint: CheckpointInfo
    twin: Completion


def main() -> int:
    """Tells the story with a tiny model; the exit status."""
    transcript = Transcript()
    try:
        with tempfile.TemporaryDirectory(prefix="holdfast-demo-") as folder:
            model = tiny.make("llama", Path(folder))
            arguments = ["-m", str(model.model), "--mmproj", str(model.projector), "-c", "4096", "-np", "2"]
            tell(transcript, arguments, Path(folder))
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
    picture = folder / "kelp.jpg"
    draw(picture)
    transcript.title("Holdfast: a session with a picture in it, restored after kill -9")
    data = ["--data-dir", str(folder / "data")]
    with ServerProcess([*arguments, *data], folder / "server.log") as server:
        serve(transcript, server, "The server starts")
        with Client(server.address) as client:
            before = until_the_crash(transcript, client, picture)
        with transcript.step("The server is killed with SIGKILL"):
            server.kill()
        serve(transcript, server, "It starts again on the same data")
        with Client(server.address) as client:
            after_the_crash(transcript, client, before)


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


def until_the_crash(transcript: Transcript, client: Client, picture: Path) -> Before:
    """A chat about the picture, a checkpoint in the middle, and how it went on: the twin."""
    with transcript.step("A chat session is created"):
        session = client.create_session("shore", temperature=0.0, max_tokens=TOKENS)
    with transcript.step("Text and a picture are appended, and durable at once") as cost:
        transcript.quote("system", SYSTEM)
        transcript.quote("user", f"{QUESTION}  [{picture.name}, {size(picture.stat().st_size)}]")
        usage = session.append(holdfast.system(SYSTEM), QUESTION, picture)
        cost.add(usage, f"{usage.prompt_tokens:,} tokens appended")
    generate(transcript, session, "The model answers")
    with transcript.step("A checkpoint") as cost:
        checkpoint = session.checkpoint("low-tide")
        cost.add(checkpoint.usage, f"{checkpoint.token_count:,} tokens saved")
    return Before(checkpoint, generate(transcript, session, "The conversation goes on: the twin", FOLLOW_UP))


def after_the_crash(transcript: Transcript, client: Client, before: Before) -> None:
    """The checkpoint in a new session, and the same continuation."""
    with transcript.step("The checkpoint is restored into a new session") as cost:
        restored = client.restore(before.checkpoint, "shore-again")
        usage = restored.usage
        cost.add(usage, str(restored.mode).upper(), f"{usage.prefilled_tokens} tokens prefilled")
    require(
        restored.mode is RestoreMode.RESTORED, f"the session was {restored.mode}: {restored.rebuild_reason}"
    )
    require(usage.prefilled_tokens == 0, f"the restore prefilled {usage.prefilled_tokens} tokens")
    heading = "The conversation goes on from there, in the new session"
    again = generate(transcript, restored.session, heading, FOLLOW_UP)
    with transcript.step("The two continuations are compared") as cost:
        compare(before.twin, again)
        prefilled = again.finish.usage.prefilled_tokens
        cost.add(None, f"{len(again.token_ids)} tokens, all equal", f"{prefilled} tokens prefilled for each")


def generate(transcript: Transcript, session: Session, heading: str, question: str = "") -> Completion:
    """Asks what there is to ask, generates, and shows what came."""
    with transcript.step(heading) as cost:
        if question:
            transcript.quote("user", question)
            session.append(question)
        completion = session.complete()
        transcript.quote("model", completion.text)
        cost.add(completion.finish.usage)
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
