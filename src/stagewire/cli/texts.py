"""Lines of text that are safe to print; needs nothing but the standard library."""

import logging
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


def remark_logs() -> None:
    """Say what the SDK and the agent log, in the form of every other remark."""
    logger = logging.getLogger("stagewire")
    if not any(isinstance(handler, _Remarks) for handler in logger.handlers):
        logger.addHandler(_Remarks())
        logger.propagate = False


class _Remarks(logging.Handler):
    """Writes records as single lines, and never a traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        remark(record.getMessage())


SERVING_HTTP = " and MLflow's API on {url}"
SERVING = """\
Stagewire serves gRPC on {address}{http}, from {database}

In another terminal, try:
  stagewire model create churn --address {address}
  stagewire version create churn --source s3://models/churn/1 --metric auc=0.91
  stagewire promote churn 1 --stage Production
  stagewire watch --from beginning
  stagewire --help

Ctrl-C stops it in order."""
