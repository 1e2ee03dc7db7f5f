"""A writer that stops itself between the head and the commit: `python stopping.py URL`."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from stagewire import errors, pb
from stagewire.service import models
from stagewire.store import events
from stagewire.store.opening import open_database

if TYPE_CHECKING:
    from stagewire.store.transactions import Tx


def work(tx: Tx) -> None:
    """Take the head, and stop as a machine does whose cable was cut."""
    models.create(tx, pb.CreateModelRequest(model=pb.Model(name="stopped")))
    revision = events.append(tx, request_id="", method="CreateModel")
    print("head", revision, flush=True)  # noqa: T201  # told to the test
    os.kill(os.getpid(), signal.SIGSTOP)


def main(url: str) -> None:
    """Write once; print what became of it after the stop."""
    database = open_database(url)
    try:
        database.write(work)
        print("committed", flush=True)  # noqa: T201  # as above
    except errors.RegistryError as error:
        print(error.reason, flush=True)  # noqa: T201  # as above
    database.close()


if __name__ == "__main__":
    main(sys.argv[1])
