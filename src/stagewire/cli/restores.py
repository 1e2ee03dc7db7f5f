"""`stagewire import --database-url`: an export with its log, into a database that nobody serves.

Like `stagewire database`, it needs the server's dependencies and owns what it opens.
"""

import logging
from collections.abc import Iterator
from contextlib import closing
from typing import IO

import structlog

from stagewire import pb
from stagewire.cli import output
from stagewire.cli.arguments import Format
from stagewire.migrate import lines
from stagewire.service import restores
from stagewire.settings import Settings
from stagewire.store import upgrades
from stagewire.store.opening import open_database, refuse_shared


def restore(opened: IO[str], database_url: str, form: Format) -> None:
    """Check the file, then write it in one transaction and prove its log."""
    total = sum(1 for _ in _read(opened))
    # A refusal says it all in one line; a server's log lines would stand in the answer.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    refuse_shared(database_url)
    upgrades.upgrade(database_url)
    trusts = Settings().trust_storage
    database = open_database(database_url, readers=1, listens=False, trusts_storage=trusts)
    with closing(database), output.progress() as progress:
        bar = progress.add_task("restoring", total=total)

        def records() -> Iterator[pb.RegistryRecord]:
            for record in _read(opened):
                yield record
                progress.update(bar, advance=1)

        count = database.write(lambda tx: restores.restore(tx, records()))
        head = database.read(lambda tx: (tx.log_id, tx.head))
    output.show_plain(
        {"records": count, "log_id": head[0], "revision": head[1]},
        form,
        name=head[0],
        text=f"restored {count:,} records; the log holds, up to revision {head[1]}",
    )


def _read(opened: IO[str]) -> Iterator[pb.RegistryRecord]:
    opened.seek(0)
    for _number, record in lines.read(opened):
        yield record
