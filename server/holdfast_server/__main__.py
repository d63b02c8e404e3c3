"""`python -m holdfast_server`: the same as `holdfast serve`."""

import typer

from holdfast_server.command import serve

if __name__ == "__main__":
    typer.run(serve)
