"""The table of faults counts what tests told, and takes a failed test for a violation."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from tests.faults import table

if TYPE_CHECKING:
    from collections.abc import Sequence

TOOL = Path(__file__).parents[2] / "tools" / "write_faults.py"
KILL = "tests/faults/test_kill.py::test_nothing_is_lost"


def report(
    test: str,
    outcome: Literal["passed", "failed"] = "passed",
    *,
    marked: bool = True,
    **properties: object,
) -> pytest.TestReport:
    """Make the report of a test's call that told so much of itself."""
    return pytest.TestReport(
        nodeid=test,
        location=("", 0, test),
        keywords={"fault": 1} if marked else {},
        outcome=outcome,
        longrepr=None,
        when="call",
        user_properties=list(properties.items()),
    )


def test_the_cases_of_a_test_are_one_row_and_their_counts_are_summed() -> None:
    (row,) = table.gather(
        [
            report(f"{KILL}[sqlite]", fault="kill -9", runs=20, checked={"W1": 5, "kills": 20}),
            report(f"{KILL}[postgresql]", fault="kill -9", runs=6, checked={"W1": 7, "W2": 1}),
        ]
    )

    assert (row.test, row.fault, row.runs, row.violations) == (KILL, "kill -9", 26, 0)
    assert table.invariants(row) == {"W1": 12, "W2": 1}


def test_a_test_that_failed_is_a_violation_whatever_it_told_before() -> None:
    rows = table.gather(
        [
            report(f"{KILL}[sqlite]", fault="kill -9", runs=20, checked={"W1": 5}),
            report(f"{KILL}[postgresql]", "failed", fault="kill -9", runs=6, checked={"W1": 7}),
            report("tests/faults/test_other.py::test_it_stands", "failed"),
        ]
    )

    assert [(r.fault, r.runs, r.violations) for r in rows] == [
        ("kill -9", 20, 1),
        ("it stands", 0, 1),
    ]
    assert table.invariants(rows[0]) == {"W1": 5}


def test_what_is_no_fault_test_has_no_row() -> None:
    assert table.gather([report("tests/rules/test_names.py::test_names", marked=False)]) == []


def filled(page: Path, rows: Sequence[table.Row]) -> tuple[int, str, str]:
    """Write results into a page; give the exit status, what was said, and the page."""
    file = page.with_suffix(".json")
    table.write(file, rows, seconds=90)
    command = [sys.executable, str(TOOL), str(file), str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr, page.read_text()


def page(folder: Path, *lines: str) -> Path:
    """Write a page with so many rows of faults."""
    begin, end = "<!-- begin {} -->", "<!-- end {} -->"
    written = folder / "page.md"
    written.write_text(
        "\n".join(
            [
                begin.format("run: written by `make faults`"),
                end.format("run"),
                begin.format("faults: the last three columns are written by `make faults`"),
                "| fault | shown by | runs | checked | violations |",
                "|---|---|---|---|---|",
                *lines,
                end.format("faults"),
                begin.format("counts: written by `make faults`"),
                end.format("counts"),
                "after",
            ]
        )
    )
    return written


def row(test: str = KILL, **values: Any) -> table.Row:
    return table.Row(test, "kill -9", 26, **values)


def test_figures_stand_beside_the_tests_that_the_page_names(tmp_path: Path) -> None:
    written = page(tmp_path, "| Killed | `test_kill.py` | | | |", "| Expired | Not here | | | |")
    counts = Counter({"W1": 1000, "W2": 2, "W3": 1, "W16": 1, "kills": 9})

    status, said, text = filled(written, [row(checked=counts)])

    assert (status, said) == (0, "")
    assert "| Killed | `test_kill.py` | 26 | 1,004 (W1 to W3, W16) | 0 |" in text
    assert "| Expired | Not here |  |  |  |" in text
    assert "| W1 | 1,000 |" in text
    assert text.endswith("after")
    assert "kills" not in text


def test_writing_twice_changes_nothing(tmp_path: Path) -> None:
    written = page(tmp_path, "| Killed | `test_kill.py` | | | |")
    first = filled(written, [row()])

    assert filled(written, [row()]) == first


def test_a_test_without_a_row_and_a_row_without_a_test_are_told_of(tmp_path: Path) -> None:
    written = page(tmp_path, "| Killed | `test_kill.py::test_gone` | | | |")

    status, said, _ = filled(written, [row()])

    assert status == 1
    assert f"no row for {KILL}" in said
    assert "names test_kill.py::test_gone, which did not run" in said


def test_what_is_written_says_on_what_it_was_shown(tmp_path: Path) -> None:
    file = tmp_path / "faults.json"

    table.write(file, [row(violations=1)], seconds=90)

    found = json.loads(file.read_text())
    assert (found["minutes"], found["rows"][0]["violations"]) == (1.5, 1)
    assert {"Python", "SQLite", "grpcio"} <= found["versions"].keys()
