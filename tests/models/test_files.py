"""What `make` leaves on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.tiny import NAMES, TinyModel, make
from models.tiny.writer import model_file


def _contents(model: TinyModel) -> list[bytes]:
    return [path.read_bytes() for path in (model.model, model.projector) if path]


@pytest.mark.parametrize("name", NAMES)
def test_same_name_same_bytes(name: str, folder: Path, tmp_path: Path) -> None:
    assert _contents(make(name, folder)) == _contents(make(name, tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small(name: str, folder: Path) -> None:
    assert max(map(len, _contents(make(name, folder)))) < 4 << 20


def test_another_process_writes_the_same_bytes_and_prints_the_paths(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "models.tiny", "llama", str(tmp_path)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )
    model, projector = map(Path, done.stdout.splitlines())
    assert _contents(TinyModel("llama", model, projector, "plain")) == _contents(make("llama", folder))


def test_another_seed_writes_other_weights(folder: Path) -> None:
    one, other = make("llama", folder), make("llama-other", folder)
    assert all(a != b and len(a) == len(b) for a, b in zip(_contents(one), _contents(other), strict=True))


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    first = make("llama-notemplate", tmp_path)
    first.model.write_bytes(b"kept")
    assert make("llama-notemplate", tmp_path).model.read_bytes() == b"kept"


def test_nothing_else_is_left_behind(tmp_path: Path) -> None:
    made = make("llama", tmp_path / "new" / "folder")
    assert sorted(made.model.parent.iterdir()) == sorted(filter(None, (made.model, made.projector)))


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), model_file(tmp_path / "half.gguf", "llama", seed=1) as file:
        file.add_norm("output_norm", 8)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        make("../llama", tmp_path)
    assert list(tmp_path.iterdir()) == []
