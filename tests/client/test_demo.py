"""The demo: its verdict is earned."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from demo import story
from demo.server import ServerFailedError, ServerProcess
from demo.transcript import Transcript, describe, size
from holdfast import Completion, Finish, FinishReason, Usage, _convert
from holdfast.v1 import session_pb2
from tests.conftest import REPOSITORY


def demo(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_the_demo_ends_well() -> None:
    done = demo()
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "demo: ok"
    assert done.returncode == 0
    assert "RESTORED · 0 tokens prefilled" in done.stdout
    assert "\x1b" not in done.stdout


def completion(token_ids: tuple[int, ...], prefilled: int) -> Completion:
    no_time = timedelta()
    usage = Usage(
        **{f.name: no_time if f.name.endswith("_time") else 0 for f in dataclasses.fields(Usage)}  # type: ignore[arg-type]
    )
    session = _convert.session_info(session_pb2.Session())
    finish = Finish(
        reason=FinishReason.MAX_TOKENS,
        matched_stop="",
        session=session,
        usage=dataclasses.replace(usage, prefilled_tokens=prefilled),
    )
    return Completion(text="", token_ids=token_ids, finish=finish)


@pytest.mark.parametrize(
    ("twin", "again"),
    [
        (completion((1, 2), 5), completion((1, 3), 5)),
        (completion((1, 2), 5), completion((1, 2, 3), 5)),
        (completion((1, 2), 5), completion((1, 2), 6)),
        (completion((), 5), completion((), 5)),
    ],
    ids=["another token", "a longer answer", "more prefilled", "nothing to compare"],
)
def test_a_broken_promise_is_noticed(twin: Completion, again: Completion) -> None:
    story.compare(twin, twin) if twin.token_ids else None
    with pytest.raises(story.BrokenPromiseError):
        story.compare(twin, again)


def test_a_broken_promise_fails_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise story.BrokenPromiseError("the session was rebuilt: PAGE_CORRUPT")

    monkeypatch.setattr(story, "tell", broken)
    assert story.main() == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "demo: FAILED: the session was rebuilt: PAGE_CORRUPT"


def test_a_server_that_does_not_start_is_told_with_its_own_words(tmp_path: Path) -> None:
    arguments = ["-m", str(tmp_path / "none.gguf"), "--data-dir", str(tmp_path / "data")]
    with ServerProcess(arguments, tmp_path / "log") as server, pytest.raises(ServerFailedError) as failed:
        server.start()
    assert "status 1: holdfast: error: " in str(failed.value)


def test_what_would_move_the_cursor_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    Transcript().quote("model", "a\x1b[2Jb\r\n\tc")
    assert capsys.readouterr().out == "    model: a·[2Jb···c\n"


def test_costs_in_words() -> None:
    usage = dataclasses.replace(completion((), 12).finish.usage, raw_bytes=2_500_000)
    assert describe(usage) == ["12 tokens prefilled", "2.5 MB of KV state"]
    assert [size(n) for n in (12, 1_234, 1_234_567)] == ["12 bytes", "1.2 kB", "1.2 MB"]
