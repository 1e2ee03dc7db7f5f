"""One process that compacts a registry until it is ended: `python compacting.py URL`.

By turns everything goes, and all but the last second, in which most watchers are and slow ones are
not. Batches are small, so that the mark moves all the time.
"""

from __future__ import annotations

import itertools
import sys
import threading
from functools import partial

from stagewire import errors
from stagewire.store import compaction
from stagewire.store.opening import open_database

BATCH = 20
PAUSE_SECONDS = 0.1


def main(url: str) -> None:
    """Compact, printing the mark after each run that moved it."""
    database = open_database(url, readers=1, listens=False)
    for keep_seconds in itertools.cycle((0.0, 1.0)):
        try:
            old = database.read(partial(compaction.older_than, seconds=keep_seconds))
            for mark in compaction.compact(database, old.until, batch=BATCH):
                print(mark, flush=True)  # noqa: T201  # told to the test
        except errors.RegistryError as error:
            # Others in its way: what is done is done, and the next run goes on.
            if error.reason != "CONTENTION":
                raise
        threading.Event().wait(PAUSE_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
