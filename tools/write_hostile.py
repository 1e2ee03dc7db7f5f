"""Write what came of hostile requests into docs/hostile.md: `write_hostile.py FILE [PAGE]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "hostile.md"
BEGIN, END = "<!-- begin hostile: written by `make hostile` -->", "<!-- end hostile -->"
HEADS = ("kind", "database", "requests", "answers", "health p50/p99 in ms", "memory grown by")


def main(file: str, page_file: str = str(PAGE)) -> int:
    """Fill the page in; answer the exit status."""
    found = json.loads(Path(file).read_text())
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    how = "at length" if found["at_length"] else "in short"
    lines = [
        f"{found['date']}, {how}, on a machine of {found['cores']} cores. {versions}.",
        "",
        "| " + " | ".join(HEADS) + " |",
        "|---" * len(HEADS) + "|",
    ]
    lines += ["| " + " | ".join(row["cells"]) + " |" for row in found["rows"]]
    path = Path(page_file)
    before, _, rest = path.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{after}")
    failed = [row["kind"] for row in found["rows"] if not row["passed"]]
    for kind in failed:
        print(f"{kind}: failed")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
