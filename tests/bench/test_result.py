"""Goals, and results as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.report import parse
from bench.result import Goal, Result, at_least, at_most, exactly
from bench.statistics import Estimate


def result(**fields: object) -> Result:
    """A result as a bench makes it."""
    given: dict[str, object] = {"bench": "fork", "command": "python -m bench run fork", "quick": False}
    return Result(**(given | {"rounds": 5, "started": "2026-01-01"} | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (at_least(20.0, 20), True),
        (at_least(19.9, 20), False),
        (at_most(1.0, 1.0), True),
        (at_most(1.01, 1.0), False),
        (exactly(0, 0), True),
        (exactly(1, 0), False),
    ],
)
def test_goals_are_met_at_their_bound(goal: Goal, met: bool) -> None:
    assert goal.met is met


def test_an_estimate_is_judged_by_its_value() -> None:
    goal = at_most(Estimate(0.9, 0.5, 1.5), 1)
    assert goal == Goal(0.9, "<= 1", True, (0.5, 1.5))


def test_the_line_has_what_the_design_names() -> None:
    made = result(goals={"branch": at_most(4.0, 5)}, machine={"cores": 2}, versions={"python": "3.11"})
    data = json.loads(made.line())
    assert "\n" not in made.line()
    assert data["bench"] == "fork"
    assert (data["machine"], data["versions"]) == ({"cores": 2}, {"python": "3.11"})
    assert data["goals"]["branch"] == {"value": 4.0, "target": "<= 5", "met": True, "interval": None}


def test_numbers_keep_five_digits() -> None:
    data = json.loads(result(figures={"bytes": 123_456_789, "seconds": 0.123456789}).line())
    assert data["figures"] == {"bytes": 123_456_789, "seconds": 0.12346}


def test_a_saved_result_comes_back(tmp_path: Path) -> None:
    made = result(goals={"branch": at_most(4.0, 5)}, samples={"a": [1.0]}, notes=["n"])
    assert parse(made.save(tmp_path).read_text()) == made


def test_a_quick_run_does_not_replace_a_full_one(tmp_path: Path) -> None:
    assert {result(quick=quick).save(tmp_path).name for quick in (False, True)} == {
        "fork.json",
        "fork.quick.json",
    }
