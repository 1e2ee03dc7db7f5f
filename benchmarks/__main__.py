"""Measure the registry side by side with what it is compared with: `make bench`."""

from __future__ import annotations

import argparse
import sys
import time

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import report
from benchmarks.suite import FULL, NAMES, QUICK, Suite


def main() -> None:
    """Run what was asked for, and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short rounds, for a first look")
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=NAMES, help=f"any of {', '.join(NAMES)}"
    )
    parser.add_argument("-o", "--output", choices=("table", "markdown", "json"), default="table")
    parser.add_argument(
        "--write", action="store_true", help=f"also write the results to {report.PAGE.name}"
    )
    given = parser.parse_args()
    started = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    errors = Console(stderr=True)
    # Drawn between rounds only: drawing takes time from a core that is being measured.
    with Progress(*columns, console=errors, auto_refresh=False) as progress:
        task = progress.add_task("starting")

        def note(text: str) -> None:
            progress.update(task, description=text, advance="round" in text)
            progress.refresh()

        suite = Suite(QUICK if given.quick else FULL, frozenset(given.only or NAMES), note)
        progress.update(task, total=suite.turns())
        uvloop.run(suite.run())
        progress.update(task, description="done", completed=suite.turns())
        progress.refresh()
    if given.output == "table":
        # A pipe has no width, and a table cut to 80 columns tells nothing.
        console = Console() if sys.stdout.isatty() else Console(width=160)
        console.print(report.terminal(suite))
    else:
        print(report.markdown(suite) if given.output == "markdown" else report.as_json(suite))
    if given.write:
        report.write(suite)
    errors.print(f"took {time.monotonic() - started:.0f} s")


main()
