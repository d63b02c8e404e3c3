"""What a bench finds: goals with their targets, and figures beside them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.statistics import Estimate


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure to reach. `interval` is the bootstrap 95 % interval where there is one."""

    value: float
    target: str
    met: bool
    interval: tuple[float, float] | None = None


def at_least(value: Estimate | float, bound: float) -> Goal:
    """A goal that is met from `bound` on."""
    number = _number(value)
    return Goal(number, f">= {bound:g}", number >= bound, _interval(value))


def at_most(value: Estimate | float, bound: float) -> Goal:
    """A goal that is met up to `bound`."""
    number = _number(value)
    return Goal(number, f"<= {bound:g}", number <= bound, _interval(value))


def exactly(value: float, wanted: float) -> Goal:
    """A goal that is a count."""
    return Goal(value, f"== {wanted:g}", value == wanted)


def _number(value: Estimate | float) -> float:
    return value.value if isinstance(value, Estimate) else float(value)


def _interval(value: Estimate | float) -> tuple[float, float] | None:
    return (value.low, value.high) if isinstance(value, Estimate) else None


@dataclass(slots=True)
class Result:
    """One run of one bench."""

    bench: str
    command: str
    quick: bool
    rounds: int
    started: str  # UTC
    seconds: float = 0.0
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    goals: dict[str, Goal] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    """Medians and counts, in the units their names end in."""
    samples: dict[str, list[float]] = field(default_factory=dict)
    """Every sample behind a median, in the order of the rounds."""
    notes: list[str] = field(default_factory=list)
    """What a reader has to know to read the figures."""

    def line(self) -> str:
        """The whole as one line of JSON."""
        return json.dumps(_rounded(asdict(self)), separators=(", ", ": "))

    def save(self, folder: Path) -> Path:
        """Writes `NAME.json`, or `NAME.quick.json` for a quick run, into `folder`; its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / (f"{self.bench}.quick.json" if self.quick else f"{self.bench}.json")
        path.write_text(json.dumps(_rounded(asdict(self)), indent=1) + "\n")
        return path


def _rounded(value: Any) -> Any:
    """The same with numbers of at most five significant digits."""
    match value:
        case bool() | int() | str() | None:
            return value
        case float():
            return float(f"{value:.5g}")
        case dict():
            return {key: _rounded(item) for key, item in value.items()}
        case _:
            return [_rounded(item) for item in value]
