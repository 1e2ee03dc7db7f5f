"""What a compaction takes away, kept by PostgreSQL's own triggers: every event and every mark."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import sqlalchemy as sa

from stagewire import pb
from tests.faults.recordings import Mark

if TYPE_CHECKING:
    from tests.faults.recordings import History

_TRIGGERS = """
CREATE TABLE archived (LIKE log);
CREATE TABLE marks (revision bigint, seconds double precision);
CREATE FUNCTION archive() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO archived VALUES (OLD.*); RETURN OLD;
END $$;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO marks VALUES (NEW.compacted_revision, extract(epoch FROM clock_timestamp()));
  RETURN NULL;
END $$;
CREATE TRIGGER archive BEFORE DELETE ON log FOR EACH ROW EXECUTE FUNCTION archive();
CREATE TRIGGER note AFTER UPDATE OF compacted_revision ON log_head
  FOR EACH ROW EXECUTE FUNCTION note();
"""


class Archive:
    """The archive of one registry's log."""

    def __init__(self, url: str) -> None:
        """Begin to keep what is deleted from the log."""
        self._engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
        with self._engine.begin() as connection:
            connection.exec_driver_sql(_TRIGGERS)

    def complete(self, history: History) -> None:
        """Put what was compacted before what the registry lists, and write down the marks."""
        behind = time.time() - time.monotonic()
        with self._engine.connect() as connection:
            rows = connection.execute(
                sa.text("SELECT * FROM archived WHERE revision < :first ORDER BY revision"),
                {"first": history.first_listed},
            )
            history.log = [*map(_event, rows), *history.log]
            marks = connection.execute(sa.text("SELECT * FROM marks ORDER BY revision"))
            history.marks = [Mark(row.seconds - behind, row.revision) for row in marks]


def _event(row: sa.Row[tuple[object, ...]]) -> pb.Event:
    event = pb.Event(revision=row.revision, chain_hash=row.chain_hash)
    event.commit_time.FromMicroseconds(row.commit_time)
    event.payload.ParseFromString(row.payload)
    return event
