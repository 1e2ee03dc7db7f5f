"""Write the results of the fault tests into docs/reliability.md: `write_faults.py FILE [PAGE]`.

The page names each fault and the tests that show it; the figures beside them are written here,
and nothing else of the page is touched. A test that no row names, and a row whose tests did not
run, are told of and fail.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reliability.md"
RUN = ("<!-- begin run: written by `make faults` -->", "<!-- end run -->")
TABLE = (
    "<!-- begin faults: the last three columns are written by `make faults` -->",
    "<!-- end faults -->",
)
COUNTS = ("<!-- begin counts: written by `make faults` -->", "<!-- end counts -->")
#: Tests as the page names them: a file or a folder of tests/faults, or one test of a file.
NAMED = re.compile(r"`([^`]+(?:\.py(?:::\w+)?|/))`")


def main(file: str, page_file: str = str(PAGE)) -> int:
    """Fill the page in; answer the exit status."""
    found = json.loads(Path(file).read_text())
    rows = {row["test"]: row for row in found["rows"]}
    path = Path(page_file)
    page = path.read_text()
    lines, unnamed, missing = _fill(_between(page, TABLE).strip().splitlines(), rows)
    page = _replaced(page, TABLE, "\n".join(lines))
    page = _replaced(page, RUN, _about(found))
    page = _replaced(page, COUNTS, _counts(found["rows"]))
    path.write_text(page)
    for test in unnamed:
        print(f"{path.name} has no row for {test}")
    for name in missing:
        print(f"{path.name} names {name}, which did not run")
    return bool(unnamed or missing)


def _fill(
    lines: list[str], rows: dict[str, dict[str, Any]]
) -> tuple[list[str], list[str], list[str]]:
    filled, missing = lines[:2], []
    named: set[str] = set()
    for line in lines[2:]:
        fault, shown, *_ = (cell.strip() for cell in line.strip("|").split(" | "))
        names = NAMED.findall(shown)
        missing += [name for name in names if not _tests(name, rows)]
        tests = {test for name in names for test in _tests(name, rows)}
        figures = _figures([rows[test] for test in tests]) if tests else ("", "", "")
        named |= tests
        filled.append("| " + " | ".join((fault, shown, *figures)) + " |")
    return filled, sorted(rows.keys() - named), missing


def _tests(name: str, rows: dict[str, dict[str, Any]]) -> list[str]:
    path = name if name.startswith("tests/") else f"tests/faults/{name}"
    inside = path if path.endswith("/") else f"{path}::"
    return [test for test in rows if test == path or test.startswith(inside)]


def _figures(rows: list[dict[str, Any]]) -> tuple[str, str, str]:
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(row["checked"])
    told = f"{sum(counts.values()):,} ({_names(counts)})" if counts else "its own"
    runs, violations = (sum(row[name] for row in rows) for name in ("runs", "violations"))
    return f"{runs:,}", told, str(violations)


def _names(counts: Counter[str]) -> str:
    """Name invariants in order, neighbours as a range: W1 to W13, W16."""
    groups: list[list[int]] = []
    for number in sorted(int(name[1:]) for name in counts):
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    return ", ".join(f"W{g[0]}" if len(g) == 1 else f"W{g[0]} to W{g[-1]}" for g in groups)


def _about(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    how = "at length, one after another" if found["at_length"] else "in their short forms"
    return (
        f"{found['date']}: all tests {how}, in {found['minutes']:,} minutes on a machine of "
        f"{found['cores']} cores. {versions}."
    )


def _counts(rows: list[dict[str, Any]]) -> str:
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(row["checked"])
    lines = ["| invariant | times checked |", "|---|---|"]
    ordered = sorted(counts.items(), key=lambda item: int(item[0][1:]))
    return "\n".join([*lines, *(f"| {name} | {count:,} |" for name, count in ordered)])


def _between(page: str, markers: tuple[str, ...]) -> str:
    begin, end = markers
    return page.partition(begin)[2].partition(end)[0]


def _replaced(page: str, markers: tuple[str, ...], text: str) -> str:
    begin, end = markers
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
