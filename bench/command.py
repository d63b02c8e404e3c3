"""The command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import machine, peer, report
from bench.figures import BENCHES
from bench.places import DOCS, RESULTS
from bench.result import Result
from bench.run import prepared

_ROUNDS = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command that the arguments name."""
    given = _parser().parse_args(arguments)
    match given.command:
        case "peer":
            sys.stdout.write(f"{peer.build(given.jobs, given.sources)}\n")
        case "report":
            report.write(RESULTS, DOCS)
        case _:
            _run(given.name, quick=given.quick, json_only=given.json, rounds=given.rounds)


def _run(name: str, *, quick: bool, json_only: bool, rounds: int) -> None:
    """Runs a bench, keeps its result, and prints it: tables unless asked not to, then one line of JSON."""
    command = f"python -m bench run {name}" + " --quick" * quick
    command += f" --rounds {rounds}" * (rounds != _ROUNDS)
    result = Result(name, command, quick, rounds, datetime.now(UTC).isoformat(timespec="seconds"))
    result.machine, result.versions = machine.describe(), machine.versions()
    with prepared(result) as run:
        BENCHES[name](run)
    result.save(RESULTS)
    if not json_only:
        sys.stdout.write(report.render(result) + "\n")
    sys.stdout.write(result.line() + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run one bench; its last line is its result as JSON")
    run.add_argument("name", choices=list(BENCHES))
    run.add_argument("--json", action="store_true", help="print only the line of JSON")
    run.add_argument("--quick", action="store_true", help="smaller sizes: at most 10 minutes on 2 cores")
    run.add_argument("--rounds", type=int, default=_ROUNDS, help=f"rounds, {_ROUNDS} unless given")
    build = commands.add_parser("peer", help="build llama-server, the peer")
    build.add_argument("--jobs", type=int, default=2, help="compilers at once, 2 unless given")
    build.add_argument(
        "--sources", type=Path, help="llama.cpp of the pinned sdist, where it is unpacked already"
    )
    commands.add_parser("report", help="render bench/results into docs/benchmarks.md")
    return parser
