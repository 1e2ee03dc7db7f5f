"""Words for times, numbers, enums and lists, as tables and remarks have them."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

_STEPS = ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h"), (60 * 86400, 86400, "d"))


def ago(time: Timestamp, *, now: datetime | None = None) -> str:
    """Say how long ago something was; '' when it is not known."""
    if not time.ByteSize():
        return ""
    return f"{elapsed((now or datetime.now(UTC)) - time.ToDatetime(UTC))} ago"


def elapsed(span: timedelta) -> str:
    """Say how long something took, in one unit."""
    seconds = max(span.total_seconds(), 0)
    for limit, unit, name in _STEPS:
        if seconds < limit:
            return f"{int(seconds // unit)} {name}"
    return (
        f"{int(seconds // 86400 / 30.44)} mo"
        if seconds < 730 * 86400
        else f"{int(seconds // 86400 / 365.25)} y"
    )


def instant(time: Timestamp) -> str:
    """Write a time to the second, in UTC, and how long ago it was."""
    if not time.ByteSize():
        return ""
    return f"{time.ToDatetime(UTC):%Y-%m-%d %H:%M:%S} UTC ({ago(time)})"


def until(time: Timestamp, *, now: datetime | None = None) -> str:
    """Say how long there is until something; '' when it is not known."""
    if not time.ByteSize():
        return ""
    left = time.ToDatetime(UTC) - (now or datetime.now(UTC))
    return f"in {elapsed(left)}" if left > timedelta() else f"{elapsed(-left)} ago"


def instant_to_come(time: Timestamp) -> str:
    """Write a time to the second, in UTC, and how long there is until then."""
    if not time.ByteSize():
        return ""
    return f"{time.ToDatetime(UTC):%Y-%m-%d %H:%M:%S} UTC ({until(time)})"


def number(value: float) -> str:
    """Write a measured number to four significant digits."""
    return f"{value:.4g}"


def enum_name(kind: Any, value: int) -> str:
    """Write an enum's value without its prefix; numbers from a newer server stay numbers."""
    if value not in kind.values():
        return str(value)
    prefix = kind.Name(0).removesuffix("UNSPECIFIED")
    return str(kind.Name(value)).removeprefix(prefix)


def words(texts: Iterable[Any]) -> str:
    """Join what stands in one cell."""
    return ", ".join(str(text) for text in texts)


def labels(mapping: Mapping[str, Any]) -> str:
    """Join tags and the like by key."""
    return words(f"{key}={mapping[key]}" for key in sorted(mapping))
