"""The event log: appended to by the last statement of every use case, read by the tail.

The head row orders all writes: revisions are given in commit order and without gaps, because
nothing is locked or awaited between taking the head and the commit.
"""

from __future__ import annotations

import hashlib
import struct
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import errors, pb
from stagewire.store import schema
from stagewire.store.transactions import STAMPS, dialect_insert, primary_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from google.protobuf.message import Message

    from stagewire.store.transactions import Tx

# Longer texts stand in the log as digest and length; their bodies can be erased, the log can't.
OMIT_ABOVE_BYTES = 1024
MAX_PAYLOAD_BYTES = 1024 * 1024
MAX_CHANGES = 1000
_HEAD = sa.select(schema.LogHead).where(schema.LogHead.id == 1)
_HASH = sa.select(schema.Log.chain_hash).where(schema.Log.revision == sa.bindparam("revision"))
GENESIS_HASH = hashlib.sha256(b"stagewire log").digest()


def chain(previous: bytes, revision: int, commit_time: int, payload: bytes) -> bytes:
    """Hash one log row onto the one before it."""
    digest = hashlib.sha256(payload).digest()
    return hashlib.sha256(previous + struct.pack(">qq", revision, commit_time) + digest).digest()


def hash_at(tx: Tx, revision: int) -> bytes | None:
    """Read the chain hash of a revision, None where the log does not hold it."""
    head = tx.rows(_HEAD)[0]
    if revision == head.revision:
        return bytes(head.head_hash)
    if revision == head.compacted_revision:
        return bytes(head.compacted_hash)
    found: bytes | None = tx.scalar(_HASH, revision=revision)
    return found


def append(tx: Tx, *, request_id: str, method: str) -> int:
    """Write what the use case recorded as the log's next revision, and return it.

    The last statement before the commit. Returns 0, and writes nothing, for a no-op. Refuses
    TRANSACTION_TOO_LARGE.
    """
    if not tx.records:
        return 0
    _omit_from_records(tx)
    payload = pb.EventPayload(
        actor=tx.actor,
        request_id=request_id,
        reason=tx.reason,
        method=method,
        records=tx.records,
    ).SerializeToString(deterministic=True)
    if len(payload) > MAX_PAYLOAD_BYTES or len(tx.records) > MAX_CHANGES:
        raise errors.RegistryError(
            "TRANSACTION_TOO_LARGE",
            f"this call would write {len(tx.records)} changes in {len(payload)} bytes; one call "
            f"may write {MAX_CHANGES} in {MAX_PAYLOAD_BYTES}: split it",
        )
    about = sorted({(r.change.namespace, r.change.model_id) for r in tx.records})
    if tx.postgresql:
        _advance_postgresql(tx, request_id, payload, about)
    else:
        _advance_sqlite(tx, request_id, payload, about)
    return tx.head


def _omit_from_records(tx: Tx) -> None:
    bodies: dict[tuple[str, int, str], str] = {}
    for record in tx.records:
        change = record.change
        name = change.WhichOneof("resource")
        if name is None or change.ByteSize() <= OMIT_ABOVE_BYTES:
            continue
        for omitted, body in omit_texts(getattr(change, name)):
            change.omitted_texts.append(omitted)
            bodies[change.model_id, change.version, omitted.sha256] = body
    if bodies:
        columns = ("model_id", "number", "sha256", "body")
        rows = [dict(zip(columns, (*key, bodies[key]), strict=True)) for key in sorted(bodies)]
        tx.run(_texts(tx.connection.dialect.name), rows)


@cache
def _texts(dialect: str) -> sa.Executable:
    statement: sa.Executable = dialect_insert(dialect)(schema.Text).on_conflict_do_nothing()
    return statement


def omit_texts(message: Message, prefix: str = "") -> Iterator[tuple[pb.OmittedText, str]]:
    """Empty every text over 1 KiB in `message`, giving what stands for it, and the text."""
    for descriptor, value in message.ListFields():
        path = prefix + descriptor.name
        if descriptor.type == descriptor.TYPE_STRING and isinstance(value, str):
            if len(value) * 4 > OMIT_ABOVE_BYTES and (omitted := _omitted(path, value)):
                message.ClearField(descriptor.name)
                yield omitted, value
        elif descriptor.message_type is None:
            continue
        elif descriptor.message_type.GetOptions().map_entry:
            for key in sorted(value):
                text = value[key]
                if isinstance(text, str) and (omitted := _omitted(f'{path}["{key}"]', text)):
                    value[key] = ""
                    yield omitted, text
        elif hasattr(value, "ListFields"):
            yield from omit_texts(value, f"{path}.")
        else:
            for index, item in enumerate(value):
                yield from omit_texts(item, f"{path}[{index}].")


def _omitted(path: str, text: str) -> pb.OmittedText | None:
    data = text.encode()
    if len(data) <= OMIT_ABOVE_BYTES:
        return None
    return pb.OmittedText(path=path, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


_HEAD_UPDATE = (
    sa.update(schema.LogHead)
    .where(schema.LogHead.id == 1)
    .values(
        revision=sa.bindparam("revision"),
        head_hash=sa.bindparam("hash"),
        commit_time=sa.bindparam("time"),
    )
)
_LOG_INSERT = sa.insert(schema.Log)
_LOG_MODELS_INSERT = sa.insert(schema.LogModel)


def _advance_sqlite(
    tx: Tx, request_id: str, payload: bytes, about: Sequence[tuple[str, str]]
) -> None:
    digest = chain(tx.head_hash, tx.revision, tx.time, payload)
    tx.run(_HEAD_UPDATE, {"revision": tx.revision, "hash": digest, "time": tx.time})
    tx.run(
        _LOG_INSERT,
        {
            "revision": tx.revision,
            "commit_time": tx.time,
            "actor": tx.actor,
            "request_id": request_id,
            "payload": payload,
            "chain_hash": digest,
        },
    )
    tx.run(
        _LOG_MODELS_INSERT,
        [{"namespace": n, "model_id": m, "revision": tx.revision} for n, m in about],
    )
    tx.head, tx.head_hash, tx.commit_time = tx.revision, digest, tx.time


def _advance_postgresql(
    tx: Tx, request_id: str, payload: bytes, about: Sequence[tuple[str, str]]
) -> None:
    values: dict[str, Any] = {
        "actor": tx.actor,
        "request_id": request_id,
        "payload": payload,
        "namespaces": [n for n, _ in about],
        "model_ids": [m for _, m in about],
    }
    for table, keys in tx.touched.items():
        for index in range(len(primary_key(table))):
            values[f"{table}_{index}"] = [key[index] for key in keys]
    row = tx.connection.execute(_advance_statement(tuple(sorted(tx.touched))), values).one()
    tx.head, tx.commit_time = row.revision, row.commit_time


@cache
def _advance_statement(tables: tuple[str, ...]) -> sa.TextClause:
    """Write the one statement that takes the head, appends the row and stamps what was touched.

    A single statement, because each round trip made while holding the head row is waited for by
    every other writer of the fleet.
    """
    stamps = ",\n".join(_stamp_clause(table) for table in tables)
    # One reading for the whole statement: the row's time and the hashed one must be the same.
    now = "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint"
    return sa.text(f"""
        WITH head AS (
          UPDATE log_head SET revision = revision + 1, commit_time = greatest(commit_time, {now}),
            head_hash = sha256(head_hash || int8send(revision + 1)
              || int8send(greatest(commit_time, {now})) || sha256(CAST(:payload AS bytea)))
          WHERE id = 1 RETURNING revision, commit_time, head_hash
        ), appended AS (
          INSERT INTO log (revision, commit_time, actor, request_id, payload, chain_hash)
          SELECT revision, commit_time, :actor, :request_id, CAST(:payload AS bytea), head_hash
          FROM head
        ), about AS (
          INSERT INTO log_models (namespace, model_id, revision)
          SELECT k.namespace, k.model_id, head.revision FROM head,
            unnest(CAST(:namespaces AS text[]), CAST(:model_ids AS text[]))
              AS k(namespace, model_id)
        ){"," if stamps else ""}
        {stamps}
        SELECT revision, commit_time FROM head
    """)  # noqa: S608  # table and column names are the schema's own


def _stamp_clause(table: str) -> str:
    revisions, times = STAMPS[table]
    columns = schema.Table.metadata.tables[table].c
    key = primary_key(table)
    sets = [
        f"{c} = CASE WHEN t.{c} = 0 THEN head.{source} ELSE t.{c} END"
        for names, source in ((revisions, "revision"), (times, "commit_time"))
        for c in names
    ]
    types = ["bigint" if isinstance(columns[c].type, sa.BigInteger) else "text" for c in key]
    arrays = ", ".join(f"CAST(:{table}_{i} AS {type_}[])" for i, type_ in enumerate(types))
    names = ", ".join(f"k{i}" for i in range(len(key)))
    where = " AND ".join(f"t.{c} = k.k{i}" for i, c in enumerate(key))
    return (
        f"{table}_stamped AS (UPDATE {table} t SET {', '.join(sets)} "  # noqa: S608  # own names
        f"FROM head, unnest({arrays}) AS k({names}) WHERE {where})"
    )
