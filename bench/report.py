"""Results as tables: on the terminal, and between two marks in docs/benchmarks.md."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from bench.result import Goal, Result

BEGIN = "<!-- results: written by `python -m bench report` -->"
END = "<!-- end of results -->"


def load(folder: Path) -> list[Result]:
    """The results in a folder, by name; of a bench that has a full run, its quick one is left out."""
    full = {path.stem for path in folder.glob("*.json") if not path.name.endswith(".quick.json")}
    paths = (p for p in sorted(folder.glob("*.json")) if p.stem in full or p.stem.split(".")[0] not in full)
    return [parse(path.read_text()) for path in paths]


def parse(text: str) -> Result:
    """A result out of its JSON."""
    data = json.loads(text)
    goals = {name: Goal(**goal) for name, goal in data.pop("goals").items()}
    return Result(**data, goals=goals)


def render(result: Result) -> str:
    """One result: what was run, goals, figures, notes."""
    how = f"{result.rounds} round{'s' * (result.rounds != 1)}"
    return "\n".join(
        [
            f"### {result.bench}",
            "",
            f"`{result.command}`: {how}, {result.seconds:.0f} s, {result.started}, "
            f"load before {result.machine.get('load_before', '?')}.",
            "",
            *_goals(result),
            "",
            "| figure | value |",
            "|---|---|",
            *(
                f"| {name.replace('_', ' ')} | {_figure(name, value)} |"
                for name, value in result.figures.items()
            ),
            "",
            *(f"{note}\n" for note in result.notes),
        ]
    )


def write(folder: Path, docs: Path) -> None:
    """Puts all results of `folder` between the marks of `docs`. Raises ValueError when it has no marks."""
    before, begin, rest = docs.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{docs.name} has no place for results")
    docs.write_text(f"{before}{BEGIN}\n\n{_whole(load(folder))}\n{END}{after}")


def _whole(results: list[Result]) -> str:
    parts = ["## Goals", "", "| bench | goal | reached | 95 % | target | met |", "|---|---|---|---|---|---|"]
    parts += [row for result in results for row in _summary(result)]
    parts += ["", "## Measured on", "", *_machines(results), "", "## Every figure", ""]
    return "\n".join(parts + [render(result) for result in results])


def _machines(results: Iterable[Result]) -> list[str]:
    """One line for each machine and set of versions that results come from."""
    lines: dict[str, list[str]] = {}
    for result in results:
        about = result.machine
        memory = about.get("memory_bytes", 0) / 2**30
        versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
        line = (
            f"{about.get('processor')}, {about.get('cores')} cores, {memory:.0f} GiB, "
            f"Linux {about.get('kernel')}, {about.get('file_system')}; {versions}"
        )
        lines.setdefault(line, []).append(result.bench)
    return [f"- {', '.join(names)}: {line}." for line, names in lines.items()]


def _summary(result: Result) -> list[str]:
    name = f"{result.bench} (quick)" if result.quick else result.bench
    return [f"| {name} | {_row(goal_name, goal)}" for goal_name, goal in result.goals.items()]


def _goals(result: Result) -> list[str]:
    rows = [f"| {_row(name, goal)}" for name, goal in result.goals.items()]
    return ["| goal | reached | 95 % | target | met |", "|---|---|---|---|---|", *rows]


def _row(name: str, goal: Goal) -> str:
    interval = f"{goal.interval[0]:.3g} to {goal.interval[1]:.3g}" if goal.interval else ""
    met = "yes" if goal.met else "**no**"
    return f"{name.replace('_', ' ')} | {_goal_value(goal.value)} | {interval} | {goal.target} | {met} |"


def _goal_value(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.3g}"


def _figure(name: str, value: object) -> str:
    """A value with its unit, which its name ends in."""
    if not isinstance(value, int | float):
        return str(value)
    if "bytes" in name and value >= 1e5:
        return f"{value / 1e6:.4g} MB"
    if name.endswith(("seconds", "call", "first_token", "serving", ".fork")) and value < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.5g}"
