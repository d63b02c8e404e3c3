"""`holdfast`: the command line. Needs `pip install 'holdfast[cli]'`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line; ends the process with its exit status."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError:
        sys.exit("holdfast: the command line needs more: pip install 'holdfast[cli]'")
    from holdfast import _commands

    _commands.run(sys.argv[1:])
