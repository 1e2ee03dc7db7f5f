"""The results as a table: on the terminal, as Markdown for docs/performance.md, as JSON."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import sqlite3
import statistics
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table

from benchmarks.suite import GRPC, LOOP, POOL, Suite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.fleets import Figure
    from benchmarks.suite import Row

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN = "<!-- begin results: written by `make bench` -->"
END = "<!-- end results -->"

HEADS = ("what", "database", "at once", "per second", "p50 ms", "p99 ms")
FIGURE_HEADS = ("what", "database", "found", "unit", "target", "met")
RATIO_HEADS = ("x echo", "x bare", "target", "met")
_PACKAGES = ("grpcio", "protobuf", "sqlalchemy", "psycopg", "uvloop", "structlog")


def terminal(suite: Suite) -> Group:
    """Make the tables that people look at."""
    table = Table(*HEADS, *RATIO_HEADS, title="medians of the rounds")
    for row in suite.rows:
        table.add_row(*cells(row, spread=False))
    fleet = Table(*FIGURE_HEADS, title="a fleet")
    for figure in suite.figures:
        fleet.add_row(*_figure(figure))
    return Group(*([table] if suite.rows else []), *([fleet] if suite.figures else []))


def markdown(suite: Suite) -> str:
    """Write what belongs between the page's markers."""
    lines = _about(suite)
    if suite.rows:
        lines += ["", *_lines((*HEADS, *RATIO_HEADS), map(cells, suite.rows))]
    if suite.figures:
        lines += ["", "A fleet on one server:", ""]
        lines += _lines(FIGURE_HEADS, map(_figure, suite.figures))
    if echoes := [row for row in suite.rows if row.name in (POOL, LOOP, GRPC) and row.at_once > 1]:
        lines += ["", "CPU seconds a second, of the load generator and of the server:", ""]
        heads = (*HEADS[:4], "load generator", "server")
        lines += _lines(heads, [(*cells(r)[:4], *_shares(r)) for r in echoes])
    return "\n".join(lines)


def as_json(suite: Suite) -> str:
    """Write every round of every row."""
    rows = [
        {
            "name": row.name,
            "database": row.database,
            "at_once": row.at_once,
            "rate": [s.rate for s in row.samples],
            "p50_ms": [s.p50_ms for s in row.samples],
            "p99_ms": [s.p99_ms for s in row.samples],
            "load_cpu": [s.load_cpu for s in row.samples],
            "server_cpu": [s.server_cpu for s in row.samples],
            "to_echo": row.to_echo,
            "to_bare": row.to_bare,
            "target": row.target and row.target.text,
            "met": row.target and row.target.met(row),
        }
        for row in suite.rows
    ]
    figures = [{**asdict(figure), "met": figure.met} for figure in suite.figures]
    return json.dumps({"about": _about(suite), "rows": rows, "figures": figures}, indent=1)


def write(suite: Suite) -> None:
    """Put the results between the page's markers."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{PAGE} has lost its markers: {BEGIN} and {END}")
    PAGE.write_text(f"{before}{BEGIN}\n\n{markdown(suite)}\n\n{END}{after}")


def cells(row: Row, *, spread: bool = True) -> tuple[str, ...]:
    """Write a row's cells: medians, and with `spread` the least and the most beside them."""
    told = _spread if spread else _median
    return (
        row.name,
        row.database,
        f"{row.at_once:,}",
        told([s.rate for s in row.samples], ",.0f"),
        told([s.p50_ms for s in row.samples], ".2f"),
        told([s.p99_ms for s in row.samples], ".1f"),
        told(row.to_echo, ".2f"),
        told(row.to_bare, ".2f"),
        row.target.text if row.target else "",
        ("yes" if row.target.met(row) else "no") if row.target else "",
    )


def _figure(figure: Figure) -> tuple[str, ...]:
    form = ",.2f" if figure.median < 100 else ",.0f"
    return (
        figure.name,
        figure.database,
        _spread(figure.values, form) if len(figure.values) > 1 else _median(figure.values, form),
        figure.unit,
        "" if figure.most is None else f"at most {figure.most:g}",
        {None: "", True: "yes", False: "no"}[figure.met],
    )


def _shares(row: Row) -> tuple[str, str]:
    return (
        _spread([s.load_cpu for s in row.samples], ".2f"),
        _spread([s.server_cpu for s in row.samples], ".2f"),
    )


def _median(values: Sequence[float], form: str) -> str:
    return f"{statistics.median(values):{form}}" if values else ""


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return ""
    return f"{_median(values, form)} ({min(values):{form}} to {max(values):{form}})"


def _lines(heads: Sequence[str], rows: Any) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _about(suite: Suite) -> list[str]:
    today = dt.datetime.now(dt.UTC).date()
    effort = suite.effort
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    databases = ", ".join(
        f"{name} {number}"
        for name, number in {"SQLite": sqlite3.sqlite_version, **suite.versions}.items()
    )
    machine = (
        f"{today}, {os.cpu_count()} cores of {_processor()}, {platform.system()} "
        f"{platform.release()}; Python {platform.python_version()}, {packages}; {databases}."
    )
    return [
        machine,
        f"{effort.rounds} rounds of {effort.seconds:g} s; medians, with the least and the most.",
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
