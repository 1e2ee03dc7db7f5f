"""What this client has seen of the registry's log, so that no read answers with less.

The mark is the highest revision seen in one log. When that history turns out to be lost the
mark is dropped, and answers to calls that began before do not bring it back.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """The highest revision seen; `era` counts how often history was lost or exchanged."""

    revision: int = 0
    log_id: str = ""
    era: int = 0


class History:
    """One client's mark, shared by all its threads."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self._mark = Mark()
        self._lock = threading.Lock()

    @property
    def mark(self) -> Mark:
        """What has been seen so far."""
        return self._mark

    def learn(self, revision: int, *, era: int, log_id: str = "") -> None:
        """Raise the mark, unless the news is of a lost era."""
        # The lock is for the two lines that replace the mark: most answers change nothing.
        seen = self._mark
        if revision <= seen.revision and log_id in ("", seen.log_id):
            return
        with self._lock:
            seen = self._mark
            if era != seen.era:
                return
            if log_id and seen.log_id and log_id != seen.log_id:
                self._mark = Mark(revision, log_id, era + 1)
            else:
                self._mark = Mark(max(revision, seen.revision), log_id or seen.log_id, era)

    def lose(self, lost: Mark, *, log_id: str) -> bool:
        """Drop a mark that the registry has not reached; False when another call already did."""
        with self._lock:
            if self._mark.era != lost.era:
                return False
            self._mark = Mark(0, log_id, lost.era + 1)
            return True

    def follow(self, log_id: str) -> int:
        """Begin a stream of this log, forgetting the mark of any other; return the era."""
        with self._lock:
            seen = self._mark
            if seen.log_id and seen.log_id != log_id:
                self._mark = Mark(0, log_id, seen.era + 1)
            elif not seen.log_id:
                self._mark = Mark(seen.revision, log_id, seen.era)
            return self._mark.era

    def replace(self, revision: int, *, log_id: str) -> int:
        """Take a reset's revision as the mark, also when it is lower; return the new era."""
        with self._lock:
            self._mark = Mark(revision, log_id, self._mark.era + 1)
            return self._mark.era
