"""The command line's shell: discovery, exit statuses, one clear line when something is missing."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, version
from pathlib import Path

import pytest
import typer

from holdfast import _commands
from tests.client.conftest import Fake

HOLDFAST = Path(sys.executable).with_name("holdfast")


def holdfast(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HOLDFAST, *arguments], capture_output=True, text=True, timeout=60)


def blocked(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`holdfast` where a module is not installed."""
    program = f"import sys; sys.modules[{module!r}] = None; from holdfast.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60
    )


def test_version() -> None:
    done = holdfast("version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"holdfast {version('holdfast')}\n", "")


def test_health_of_a_server(fake_elsewhere: Fake) -> None:
    done = holdfast("health", "--address", fake_elsewhere.address)
    assert (done.returncode, done.stdout) == (0, "serving\n")


def test_health_of_a_server_that_does_not_serve(fake_elsewhere: Fake) -> None:
    fake_elsewhere.run(fake_elsewhere.serving(False))
    done = holdfast("health", "-a", fake_elsewhere.address)
    assert (done.returncode, done.stdout) == (1, "not_serving\n")


def test_health_of_nothing() -> None:
    done = holdfast("health", "-a", "127.0.0.1:1")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("holdfast: ")
    assert done.stderr.count("\n") == 1
    assert "UNAVAILABLE" in done.stderr


def test_wrong_usage_is_2() -> None:
    assert holdfast("health", "--no-such-flag").returncode == 2
    assert holdfast("no-such-command").returncode == 2


def test_help_lists_the_commands_of_other_packages() -> None:
    done = holdfast("--help")
    assert done.returncode == 0
    for name in ("health", "serve", "version"):
        assert name in done.stdout


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_without_the_cli_extra_one_line_says_what_to_install(module: str) -> None:
    done = blocked(module, "version")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "holdfast: the command line needs more: pip install 'holdfast[cli]'\n"


def test_without_the_server_extra_one_line_says_what_to_install() -> None:
    done = blocked("llama_cpp", "serve", "-m", "model.gguf", "-np", "2")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "holdfast: serve needs more: pip install 'holdfast[server]' (no module named 'llama_cpp')\n"
    )
    assert blocked("llama_cpp", "version").returncode == 0
    assert "Not installed" in blocked("llama_cpp", "--help").stdout


def plugin(name: str) -> EntryPoint:
    return EntryPoint(name, f"tests.client.test_cli:{name}", "holdfast.commands")


def greet(who: str) -> None:
    """Greets."""
    typer.echo(f"hello {who}")


def forgetful() -> None:
    """Imports what is not there."""
    import nowhere_to_be_found  # type: ignore[import-not-found]  # noqa: F401


def broken() -> None:
    """Imports a module of ours that is not there: a defect, and not a missing extra."""
    import holdfast.nowhere  # type: ignore[import-not-found]  # noqa: F401


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [plugin("greet"), plugin("forgetful"), plugin("broken")]
    monkeypatch.setattr(_commands, "entry_points", lambda group: found)


@pytest.mark.usefixtures("plugins")
def test_an_entry_point_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _commands.run(["greet", "kelp"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == "hello kelp\n"


@pytest.mark.usefixtures("plugins")
def test_a_command_that_imports_late_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _commands.run(["forgetful"])
    assert ended.value.code == 1
    assert "nowhere_to_be_found" in capsys.readouterr().err


@pytest.mark.usefixtures("plugins")
def test_a_defect_of_ours_is_not_called_a_missing_extra() -> None:
    with pytest.raises(ModuleNotFoundError):
        _commands.run(["broken"])
