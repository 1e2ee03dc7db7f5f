"""Who is calling, and how long they wait."""

from __future__ import annotations

from dataclasses import dataclass

from stagewire import names


@dataclass(frozen=True, slots=True)
class Caller:
    """The one on whose behalf an operation runs.

    `deadline` is on `time.monotonic`'s clock; None waits for ever.
    """

    name: str = names.ANONYMOUS
    deadline: float | None = None


ANONYMOUS = Caller()
