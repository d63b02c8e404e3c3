"""The harness at work: turns, prompts, the servers' counters, a bench from end to end."""

from __future__ import annotations

import io
import json
from contextlib import ExitStack, redirect_stdout
from functools import partial
from pathlib import Path

import pytest

from bench import command, files, holdfast, run, text
from bench.figures import BENCHES
from bench.holdfast import Holdfast
from bench.run import Run
from models import bench as models
from models.bench import kv_heavy
from tests.bench.test_result import result


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> models.BenchModel:
    """The bench model, written for this run."""
    return models.make("kv-heavy", tmp_path_factory.mktemp("bench-model"))


def test_systems_are_measured_in_turn(tmp_path: Path) -> None:
    order = []

    def measure(name: str, number: int) -> dict[str, float]:
        order.append(f"{name}{number}")
        return {"seconds": float(number)}

    made = Run(result(rounds=2), quick=True, folder=tmp_path, stack=ExitStack())
    made.alternate({name: partial(measure, name) for name in "ab"})
    assert order == ["a0", "b0", "a1", "b1"]
    assert made.result.samples == {"a.seconds": [0, 1], "b.seconds": [0, 1]}


def test_the_folder_of_a_run_is_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "CACHE", tmp_path)
    with pytest.raises(RuntimeError), run.prepared(result()) as made:
        (made.folder / "file").write_text("x")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_the_model_has_the_kv_it_is_named_for(model: models.BenchModel) -> None:
    assert kv_heavy.KV_BYTES == 32 * 1024
    with pytest.raises(KeyError):
        models.make("kv-light", model.model.parent)


def test_a_bench_model_is_the_same_each_time(model: models.BenchModel, tmp_path: Path) -> None:
    again = models.make("kv-heavy", tmp_path)
    assert again.model.read_bytes() == model.model.read_bytes()


@pytest.mark.parametrize("tokens", [1, 100, 5000])
def test_a_prompt_has_the_tokens_it_should(model: models.BenchModel, tokens: int) -> None:
    prompt = text.words(tokens, seed=3)
    assert len(prompt.encode()) == tokens
    assert " t" not in prompt
    assert prompt == text.words(tokens, seed=3) != text.words(tokens, seed=4)


def test_a_server_is_driven_measured_killed_and_started_again(
    model: models.BenchModel, tmp_path: Path
) -> None:
    server = Holdfast(model, tmp_path, cells=512, threads=1)
    try:
        session = server.session("kept")
        assert session.append(text.words(100, seed=1)).prompt_tokens == 100
        done = holdfast.complete(session, 8)
        assert (len(done.text), done.prompt_tokens) == (8, 99)  # the last token is held back
        written = server.process.written_bytes()
        session.checkpoint()
        assert server.process.written_bytes() - written >= 100 * kv_heavy.KV_BYTES
        assert files.disk_bytes(server.data) >= 100 * kv_heavy.KV_BYTES
        assert server.process.peak_bytes() > 0 < server.process.cpu_seconds()
        server.process.kill()
        assert not server.process.running
        server.restart()
        assert holdfast.complete(server.client.session("kept"), 1).prompt_tokens == 0
    finally:
        server.close()


def test_a_server_that_does_not_start_says_where_its_log_is(model: models.BenchModel, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="did not start"):
        Holdfast(model, tmp_path, cells=512, threads=1, more=("-ngl", "-5"))


def test_evicting_files_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(10_000))
    files.evict(tmp_path)
    assert (tmp_path / "file").read_bytes() == bytes(10_000)
    assert len(files.fsync_seconds(tmp_path, 3)) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_every_bench_of_this_issue_is_there() -> None:
    assert set(BENCHES) >= {
        "checkpoint",
        "restore",
        "crash",
        "fork",
        "storage",
        "append",
        "fidelity",
        "codec",
    }


def test_the_command_prints_its_result_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(run, "CACHE", tmp_path)
    printed = io.StringIO()
    with redirect_stdout(printed):
        command.main(["run", "codec", "--quick", "--rounds", "1"])
    last = json.loads(printed.getvalue().splitlines()[-1])
    assert last["bench"] == "codec"
    assert last["command"] == "python -m bench run codec --quick --rounds 1"
    assert all(goal.keys() >= {"value", "target", "met"} for goal in last["goals"].values())
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["codec.quick.json"]
