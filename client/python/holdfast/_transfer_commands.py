"""`holdfast export` and `holdfast import`: checkpoints as files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from holdfast._client import DEFAULT_ADDRESS
from holdfast._sync import Client
from holdfast.errors import HoldfastError

Address = Annotated[
    str, typer.Option("--address", "-a", envvar="HOLDFAST_ADDRESS", help="Where the server listens.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write here, and go on with what is in OUTPUT.part.")
]
Input = Annotated[Path | None, typer.Argument(help="The file; standard input where none is named.")]
Name = Annotated[str, typer.Option("--checkpoint-id", help="Its id here; the exported one by default.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def export(
    checkpoint: Annotated[str, typer.Argument(help="Which checkpoint.")],
    output: Output = None,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Save a checkpoint as a file: holdfast export CHECKPOINT > FILE.

    The result is told on stderr where the file itself goes to stdout.
    """
    if output is None and sys.stdout.isatty():
        _fail("this would print a binary file; say where to: > FILE, or --output FILE")
    target = output or sys.stdout.buffer
    result = _run(address, lambda client: client.export_checkpoint(checkpoint, target, _progress()))
    sys.stdout.flush()
    facts = {"total_bytes": result.total_bytes, "sha256": result.sha256}
    text = f"exported {checkpoint}: {result.total_bytes} bytes, SHA-256 {result.sha256}"
    typer.echo(json.dumps(facts) if as_json else text, err=output is None)


def import_(
    file: Input = None, checkpoint_id: Name = "", as_json: Json = False, address: Address = DEFAULT_ADDRESS
) -> None:
    """Make a checkpoint of an exported file: holdfast import < FILE."""
    if file is None and sys.stdin.isatty():
        _fail("there is nothing to import; name a file, or give one: < FILE")
    source = file or sys.stdin.buffer
    result = _run(address, lambda client: client.import_checkpoint(source, checkpoint_id, _progress()))
    taken = result.checkpoint
    facts = {
        "checkpoint_id": taken.checkpoint_id,
        "token_count": taken.token_count,
        "pages_imported": result.pages_imported,
    }
    pages = "with its pages" if result.pages_imported else "without pages: a restore recomputes them"
    text = f"imported {taken.checkpoint_id}: {taken.token_count} tokens, {pages}"
    typer.echo(json.dumps(facts) if as_json else text)


def _run(address: str, work: Callable[[Client], Any]) -> Any:
    with Client(address) as client:
        try:
            return work(client)
        except HoldfastError as error:
            _fail(str(error))
        except OSError as error:
            _fail(f"{error.strerror or error}")


def _progress() -> Callable[[int, int | None], None] | None:
    """Counts on stderr, for people who watch."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int | None) -> None:
        of = f" of {total / 2**20:.1f}" if total is not None else ""
        end = "\n" if done == total else ""
        print(f"\r{done / 2**20:.1f}{of} MiB", end=end, file=sys.stderr, flush=True)  # noqa: T201

    return show


def _fail(message: str) -> NoReturn:
    typer.echo(f"holdfast: {message}", err=True)
    raise typer.Exit(1)
