"""The table of hostile requests: what the tests told of each kind, printed and written."""

from __future__ import annotations

import datetime as dt
import os
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Names the file that the table is written to.
FILE = "STAGEWIRE_HOSTILE_TABLE"
#: The property by which a test tells of its kind.
TOLD = "hostile"
_PACKAGES = ("stagewire", "grpcio", "protobuf", "uvicorn", "h11")

Row = dict[str, Any]


def gather(stats: Mapping[str, Sequence[Any]]) -> list[Row]:
    """Make rows of what tests told, whether they passed or not."""
    rows: list[Row] = []
    for outcome in ("passed", "failed"):
        for report in stats.get(outcome, ()):
            if not isinstance(report, pytest.TestReport) or report.when != "call":
                continue
            row = dict(report.user_properties).get(TOLD)
            if isinstance(row, dict):
                _, _, case = report.nodeid.partition("[")
                database = case.partition("-")[0] if "postgresql" in case else "sqlite"
                rows.append({**row, "database": database, "passed": outcome == "passed"})
    return sorted(rows, key=lambda row: (row["kind"], row["database"]))


def show(rows: Iterable[Row]) -> Table:
    """Make the table that people look at."""
    columns = ("kind", "database", "requests", "answers", "health p50/p99 ms", "grown", "")
    table = Table(*columns, title="hostile requests")
    for row in rows:
        style = "" if row["passed"] else "bold red"
        table.add_row(*cells(row), "" if row["passed"] else "FAILED", style=style)
    return table


def cells(row: Row) -> tuple[str, ...]:
    """Say what is in a row."""
    answers = ", ".join(f"{code} {count:,}" for code, count in row["codes"].items())
    beats = ", ".join(f"{name} {b[1]:g}/{b[2]:g}" for name, b in row["beats"].items())
    grown = f"{row['grown_mib']:g} MiB"
    return row["kind"], row["database"], f"{row['requests']:,}", answers, beats, grown


def about(rows: list[Row], *, many: bool) -> Row:
    """Give the rows with what they were shown on."""
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "at_length": many,
        "cores": os.cpu_count(),
        "versions": {
            "Python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        },
        "rows": [{**row, "cells": cells(row)} for row in rows],
    }
