"""`holdfast serve`: the command line of the server, made from its settings."""

from __future__ import annotations

import asyncio
import inspect
import sys
from typing import Annotated, Any

import typer

from holdfast_server import app, config
from holdfast_server.errors import StartupError


def serve(**options: Any) -> None:
    """Serve a model: long-lived sessions with pictures, over gRPC.

    Exit status: 0 after a clean shutdown, 1 when the server could not start or failed.
    """
    try:
        settings = config.load({name: value for name, value in options.items() if value is not None})
        status = asyncio.run(app.run(settings))
    except StartupError as error:
        print(f"holdfast: error: {error}", file=sys.stderr)  # noqa: T201
        status = 1
    raise typer.Exit(status)


def _parameter(name: str) -> inspect.Parameter:
    field = config.Settings.model_fields[name]
    option = typer.Option(
        *config.flags(name),
        help=field.description,
        envvar=f"HOLDFAST_{name.upper()}",
        show_envvar=True,
        show_default=str(field.default),
    )
    value: Any = field.annotation
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[value | None, option]
    )


# Typer reads the signature; one setting is one flag, described in one place.
_parameters = [_parameter(name) for name in config.Settings.model_fields]
serve.__signature__ = inspect.Signature(_parameters)  # type: ignore[attr-defined]
serve.__annotations__ = {parameter.name: parameter.annotation for parameter in _parameters}
