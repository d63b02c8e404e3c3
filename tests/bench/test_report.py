"""The report, and that what the docs show is what the results say."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import report
from bench.places import DOCS, RESULTS
from bench.result import at_most, exactly
from bench.statistics import Estimate
from tests.bench.test_result import result


def test_a_missed_goal_is_shown_as_missed() -> None:
    text = report.render(result(goals={"time_a_branch": at_most(Estimate(7.5, 7, 8), 5)}))
    assert "| time a branch | 7.5 | 7 to 8 | <= 5 | **no** |" in text


def test_figures_carry_their_units() -> None:
    figures = {"holdfast.seconds": 0.0123, "peer.bytes": 36_720_000, "turns": 20}
    text = report.render(result(figures=figures))
    assert "| holdfast.seconds | 12.3 ms |" in text
    assert "| peer.bytes | 36.72 MB |" in text
    assert "| turns | 20 |" in text


def test_a_full_run_stands_for_the_quick_one(tmp_path: Path) -> None:
    for bench, quick in (("fork", True), ("fork", False), ("append", True)):
        result(bench=bench, quick=quick).save(tmp_path)
    assert [(found.bench, found.quick) for found in report.load(tmp_path)] == [
        ("append", True),
        ("fork", False),
    ]


def test_only_what_is_between_the_marks_is_written(tmp_path: Path) -> None:
    result(goals={"lost": exactly(0, 0)}).save(tmp_path)
    docs = tmp_path / "docs.md"
    docs.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write(tmp_path, docs)
    text = docs.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| fork | lost | 0 |  | == 0 | yes |" in text
    report.write(tmp_path, docs)
    assert docs.read_text() == text


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    docs = tmp_path / "docs.md"
    docs.write_text("no place\n")
    with pytest.raises(ValueError, match="no place for results"):
        report.write(tmp_path, docs)
    assert docs.read_text() == "no place\n"


def test_the_docs_show_the_committed_results(tmp_path: Path) -> None:
    copy = tmp_path / "benchmarks.md"
    copy.write_text(DOCS.read_text())
    report.write(RESULTS, copy)
    assert copy.read_text() == DOCS.read_text(), "run: python -m bench report"
