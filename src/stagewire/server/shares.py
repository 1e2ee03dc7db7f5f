"""Whose the open watches are: nobody and no namespace has more of a server's than its share."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stagewire import names
from stagewire.errors import QuotaViolation, RegistryError
from stagewire.rights import ALL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stagewire.access.spaces import Spaces
    from stagewire.callers import Caller


class Shares:
    """The watches of one server by caller and by namespace. For the event loop's thread only."""

    def __init__(self, spaces: Spaces, *, most_per_caller: int) -> None:
        """Let a known caller have so many, 0 for any number, and a namespace what `spaces` says."""
        self._spaces = spaces
        self._most_per_caller = most_per_caller
        self._open: Counter[str] = Counter()

    @contextmanager
    def taken(self, caller: Caller, namespaces: Iterable[str]) -> Iterator[None]:
        """Count a watch for as long as it lasts. Refuses QUOTA_EXCEEDED.

        It counts in each namespace that it names; one of all namespaces counts in none.
        """
        spaces = set(namespaces or [names.DEFAULT_NAMESPACE]) - {ALL}
        whose = [f"namespace:{space}" for space in sorted(spaces)]
        for space, subject in zip(sorted(spaces), whose, strict=True):
            most = self._spaces.quota(space).max_watches
            if most and self._open[subject] >= most:
                raise _exceeded(
                    "max_watches",
                    most,
                    subject,
                    f"namespace {space!r} has its quota of {most:,} watches on this server; end "
                    "some, or have an admin of the registry raise it: stagewire namespace update "
                    f"{space} --max-watches {most + 1}",
                )
        # While access is not controlled callers are not known, and are not told apart.
        if caller.method:
            subject = f"caller:{caller.name}"
            most = self._most_per_caller
            if most and self._open[subject] >= most:
                raise _exceeded(
                    "max_watches_per_caller",
                    most,
                    subject,
                    f"{caller.name} has {most:,} watches on this server, as many as one caller "
                    "may have; watch several models or stages in one, or end some",
                )
            whose.append(subject)
        self._open.update(whose)
        try:
            yield
        finally:
            for one in whose:
                self._open[one] -= 1
                if not self._open[one]:
                    del self._open[one]


def _exceeded(quota: str, limit: int, subject: str, text: str) -> RegistryError:
    kind, _, name = subject.partition(":")
    return RegistryError(
        "QUOTA_EXCEEDED",
        text,
        quotas=[QuotaViolation(subject, text)],
        metadata={"quota": quota, "limit": str(limit), "used": str(limit), kind: name},
        # Watches end, in order, all the time.
        retry_after_seconds=random.uniform(5, 15),
    )
