"""The commands of `holdfast`, and how other packages add theirs.

A package adds a command by an entry point in the group `holdfast.commands`: its
name is the command's, its object a function as Typer takes them. A command
whose dependencies are not installed says so in one line.

Exit status: 0 done; 1 failed, in one line on stderr; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib.metadata import EntryPoint, entry_points
from importlib.metadata import version as version_of
from typing import Annotated, Any, NoReturn

import typer

from holdfast import _transfer_commands
from holdfast._client import DEFAULT_ADDRESS
from holdfast._sync import Client
from holdfast._types import ServingStatus
from holdfast.errors import HoldfastError

_GROUP = "holdfast.commands"

Address = Annotated[
    str, typer.Option("--address", "-a", envvar="HOLDFAST_ADDRESS", help="Where the server listens.")
]
Timeout = Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds to wait for an answer.")]


def version() -> None:
    """Print the version."""
    typer.echo(f"holdfast {version_of('holdfast')}")


def health(address: Address = DEFAULT_ADDRESS, timeout: Timeout = 5.0) -> None:
    """Ask a server whether it serves; exit status 0 only if it does."""
    with Client(address, timeout=timeout) as client:
        try:
            status = client.health()
        except HoldfastError as error:
            _fail(str(error))
    typer.echo(status)
    raise typer.Exit(0 if status is ServingStatus.SERVING else 1)


_OWN: dict[str, Callable[..., None]] = {
    "version": version,
    "health": health,
    "export": _transfer_commands.export,
    "import": _transfer_commands.import_,
}


def run(arguments: list[str]) -> None:
    """Runs the command that `arguments` (without the program's name) ask for."""
    application(arguments)(arguments, prog_name="holdfast")


def application(arguments: list[str]) -> typer.Typer:
    """The commands; those of other packages are imported only where one may be asked for."""
    app = typer.Typer(
        name="holdfast",
        help="Long-lived multimodal sessions on llama.cpp.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_nothing)
    for name, function in _OWN.items():
        app.command(name)(function)
    if arguments[:1] and arguments[0] in _OWN:
        return app
    for entry in sorted(entry_points(group=_GROUP), key=lambda entry: entry.name):
        _add(app, entry)
    return app


def _nothing() -> None:
    """Makes a group of the application even where it has a single command."""


def _add(app: typer.Typer, entry: EntryPoint) -> None:
    try:
        app.command(entry.name)(_guarded(entry, entry.load()))
    except ModuleNotFoundError as error:
        app.command(
            entry.name,
            help=f"Not installed: {_remedy(entry, error)}",
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )(_absent(entry, error))


def _guarded(entry: EntryPoint, function: Callable[..., Any]) -> Callable[..., Any]:
    """The command, for packages that import what they need only when it runs."""

    @wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ModuleNotFoundError as error:
            _fail(f"{entry.name} needs more: {_remedy(entry, error)}")

    return command


def _absent(entry: EntryPoint, error: ModuleNotFoundError) -> Callable[[], None]:
    def command() -> None:
        _fail(f"{entry.name} needs more: {_remedy(entry, error)}")

    return command


def _remedy(entry: EntryPoint, error: ModuleNotFoundError) -> str:
    """What to install. A missing module of our own is a defect and is raised."""
    if (error.name or "").startswith("holdfast"):
        raise error
    package = entry.dist.name if entry.dist else "holdfast"
    extra = "[server]" if package == "holdfast" else ""
    return f"pip install '{package}{extra}' (no module named {error.name!r})"


def _fail(message: str) -> NoReturn:
    """One line on stderr, exit status 1."""
    typer.echo(f"holdfast: {message}", err=True)
    raise typer.Exit(1)
