"""Options and arguments that several commands share, and the parsers of what stands in them.

Wrong text is refused here as a usage error that names the option and says what to write;
what the contract limits (lengths, patterns) is left to the server, which knows it.
"""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

#: Version numbers are int32 in the contract; a larger one can't even be asked for.
LARGEST_VERSION = 2**31 - 1
#: Revisions are int64.
LARGEST_REVISION = 2**63 - 1

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Format(StrEnum):
    """How a command prints what it found."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class Displace(StrEnum):
    """What a move does to the versions that hold the stage."""

    KEEP = "keep"
    ARCHIVE = "archive"


ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)
]
ModelId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="The deleted model's id, as `model delete` shows it.", show_default=False
    ),
]
VersionNumber = Annotated[
    int,
    typer.Argument(
        metavar="VERSION",
        min=1,
        max=LARGEST_VERSION,
        help="Number of the version.",
        show_default=False,
    ),
]
StageName = Annotated[
    str,
    typer.Option(
        "--stage", "-s", metavar="STAGE", help="The stage, in any letter case.", show_default=False
    ),
]
OfModel = Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help="Only this model's.")]
OfStage = Annotated[
    str,
    typer.Option("--stage", "-s", metavar="STAGE", help="Only this stage's, in any letter case."),
]
Description = Annotated[
    str, typer.Option("--description", "-d", metavar="TEXT", help="What it is, in Markdown.")
]
NewDescription = Annotated[
    str | None,
    typer.Option("--description", "-d", metavar="TEXT", help="The new description; '' empties it."),
]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", "-t", metavar="KEY=VALUE", help="A label; may be repeated."),
]
TagPairs = Annotated[
    list[str], typer.Argument(metavar="KEY=VALUE...", help="Tags to set.", show_default=False)
]
TagKeys = Annotated[
    list[str], typer.Argument(metavar="KEY...", help="Tags to delete.", show_default=False)
]
Filter = Annotated[
    str,
    typer.Option(
        "--filter",
        "-f",
        metavar="EXPRESSION",
        help="Only what matches, e.g. \"stage = 'Staging' AND tags.team = 'risk'\".",
    ),
]
OrderBy = Annotated[
    str, typer.Option("--order-by", metavar="FIELD", help="Sort, e.g. 'create_time desc'.")
]
Limit = Annotated[int, typer.Option("--limit", min=0, help="Most rows to list; 0 means all.")]
WithMetrics = Annotated[
    bool, typer.Option("--metrics", help="Read the latest value of each metric, too.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Delete even while it is in an active stage or aliased.")
]
Reason = Annotated[
    str, typer.Option("--reason", "-r", metavar="TEXT", help="Why; kept in the log.")
]
RequiredReason = Annotated[
    str,
    typer.Option(
        "--reason", "-r", metavar="TEXT", help="Why; kept in the log.", show_default=False
    ),
]
RequestId = Annotated[
    str,
    typer.Option(
        "--request-id",
        metavar="ID",
        help="The same ID again within 24 h returns the first answer instead of acting twice.",
    ),
]
ExpectedRevision = Annotated[
    int,
    typer.Option(
        "--expected-revision",
        min=0,
        max=LARGEST_REVISION,
        help="Refuse unless it is still at this revision; 0 means any.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything and show the answer; write nothing.")
]
DisplaceChoice = Annotated[
    Displace | None,
    typer.Option(
        "--displace",
        help="What happens to the present holders; the stage's own rule by default.",
        show_default=False,
    ),
]
LeaveOtherStages = Annotated[
    bool, typer.Option("--leave-other-stages", help="Leave every other stage, too.")
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        help="sqlite:///FILE or postgresql+psycopg://…",
        envvar="STAGEWIRE_DATABASE_URL",
        show_default=False,
    ),
]


def refuse(option: str, text: str) -> NoReturn:
    """Refuse what stands in an option: a usage error of one line that names the option."""
    raise typer.BadParameter(text, param_hint=f"'{option}'")


def pairs(option: str, texts: Sequence[str] | None) -> dict[str, str]:
    """Parse KEY=VALUE texts; refuses a text without '=', an empty key and a key given twice."""
    found: dict[str, str] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            refuse(option, f"{text!r} is not KEY=VALUE; write {_example(option, text)}")
        if key in found:
            refuse(option, f"{key!r} is given twice; leave one of them out")
        found[key] = value
    return found


def numbers(option: str, texts: Sequence[str] | None) -> dict[str, float]:
    """Parse KEY=NUMBER texts; nan, inf and -inf are numbers, too."""
    found: dict[str, float] = {}
    for key, text in pairs(option, texts).items():
        try:
            found[key] = float(text)
        except ValueError:
            refuse(option, f"{text!r} is not a number; write {_example(option, key, '0.93')}")
    return found


def moment(option: str, text: str) -> "Timestamp | None":
    """Parse a time: RFC 3339 (UTC unless it names an offset), or an age such as 90s, 2h or 7d."""
    if not text:
        return None
    from google.protobuf.timestamp_pb2 import Timestamp

    found = Timestamp()
    found.FromDatetime(_datetime(option, text))
    return found


def moment_to_come(option: str, text: str) -> "Timestamp | None":
    """Parse a time: RFC 3339 (UTC unless it names an offset), or a span from now such as 90d."""
    if not text:
        return None
    from google.protobuf.timestamp_pb2 import Timestamp

    found = Timestamp()
    found.FromDatetime(_datetime(option, text, sign=1, example="a span such as 90d"))
    return found


def chosen(
    option: str, texts: Sequence[str] | None, *, prefix: str, names: Sequence[str]
) -> list[str]:
    """Complete short enum names (`stages_changed`) by their prefix; refuses unknown ones."""
    known = {name.removeprefix(prefix): name for name in names}
    known.pop("UNSPECIFIED", None)
    found: list[str] = []
    for text in texts or ():
        short = text.upper().replace("-", "_").removeprefix(prefix)
        if short not in known:
            choices = ", ".join(name.lower() for name in known)
            refuse(option, f"{text!r} is none of {choices}")
        found.append(known[short])
    return found


def reference(option: str, text: str) -> tuple[str, int]:
    """Parse MODEL/VERSION."""
    model, slash, number = text.rpartition("/")
    if not slash or not model or not number.isdecimal() or not 1 <= int(number) <= LARGEST_VERSION:
        refuse(option, f"{text!r} is not MODEL/VERSION; write {option} churn/3".replace("  ", " "))
    return model, int(number)


def finite_seconds(option: str, value: float) -> float:
    """Accept a duration above zero; refuses NaN and infinities."""
    if not math.isfinite(value) or value <= 0:
        refuse(option, f"{value} is not a duration; write seconds above 0, e.g. {option} 30")
    return value


def _example(option: str, key: str, value: str = "value") -> str:
    shown = f"{key.partition('=')[0] or 'key'}={value}"
    return f"{option} {shown}" if option.startswith("--") else shown


def _datetime(
    option: str, text: str, *, sign: int = -1, example: str = "an age such as 2h"
) -> datetime:
    try:
        if span := re.fullmatch(r"(\d{1,9})([smhdw])", text):
            seconds = sign * int(span[1]) * _UNITS[span[2]]
            return datetime.now(UTC) + timedelta(seconds=seconds)
        found = datetime.fromisoformat(text)
    except (OverflowError, ValueError):
        refuse(option, f"{text!r} is no time; write 2026-05-01T12:00:00Z, or {example}")
    return found if found.tzinfo else found.replace(tzinfo=UTC)
