"""What access control costs a call: a token among others, its subject with ten grants."""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING

from stagewire import pb
from stagewire.access.directory import Directory
from stagewire.access.gate import Gate
from stagewire.access.ledger import Ledger
from stagewire.callers import ANONYMOUS
from stagewire.service import operations, tokens

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from stagewire.service.registry import Registry
    from stagewire.service.tail import Tail
    from stagewire.store.transactions import Tx

SUBJECT = "benchmark"
ID = "0123456789abcdef"
#: What every call of the load shows; a server without access control does not look at it.
SECRET = f"{tokens.PREFIX}_{ID}_{'k' * 43}"
GRANTS = 10
OTHER_TOKENS = 1000


def make_gate(registry: Registry, tail: Tail, executor: Executor) -> Gate:
    """Make a gate that knows nobody yet."""
    directory = Directory(registry.database, executor)
    return Gate(directory, tail, Ledger(registry.database, executor), executor)


def furnish(registry: Registry) -> None:
    """Make tokens and grants, unless they are there: the load's, and others beside it."""
    listed = registry.ListTokens(pb.ListTokensRequest(subject=SUBJECT), ANONYMOUS)
    if listed.tokens:
        return
    put = partial(tokens.put, wanted=pb.Token(), scopes=[])

    def work(tx: Tx) -> bool:
        put(tx, ID, SUBJECT, tokens.hashed(SECRET))
        for number in range(OTHER_TOKENS - 1):
            put(tx, uuid.uuid4().hex[:16], f"other-{number}", tokens.hashed(str(number)))
        return True

    operations.bootstrap(registry.database, work)
    for number in range(GRANTS):
        # The last one found is the one that lets it in.
        prefix = "read-*" if number == GRANTS - 1 else f"no-{number}-*"
        scope = pb.Scope(role=pb.ROLE_VIEWER, model=prefix)
        grant = pb.Grant(subject=SUBJECT, scope=scope)
        registry.CreateGrant(pb.CreateGrantRequest(grant=grant), ANONYMOUS)
