"""Lines of text that are safe to print; needs nothing but the standard library."""

import re
import sys

#: A tag or description may hold escape sequences; a terminal must not obey them.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def safe(text: str) -> str:
    """Replace what a terminal would obey."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str) -> str:
    """Fold a text into one line that is safe to print."""
    return safe(" ".join(text.split()))


def remark(text: str) -> None:
    """Say something beside the answer, on standard error."""
    sys.stderr.write(f"stagewire: {one_line(text)}\n")
