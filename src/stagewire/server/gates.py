"""Whether this server asks who calls: decided at its start by what it was told and what is there.

It controls access as soon as there is anything to know callers by, or anybody could reach it.
Where nobody could ever be let in it does not start.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import structlog

from stagewire.access import bootstrap
from stagewire.access.directory import Directory
from stagewire.access.gate import Gate, OpenGate
from stagewire.access.ledger import Ledger
from stagewire.access.oidc import Verifier
from stagewire.server import exposure
from stagewire.server.exposure import Exposed
from stagewire.service import grants, operations, tokens
from stagewire.store.database import StartRefusal

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from pathlib import Path

    from stagewire.access.rates import Rates
    from stagewire.service.tail import Tail
    from stagewire.settings import Settings
    from stagewire.store.database import Database

log = structlog.get_logger("stagewire.access")


async def open_gate(
    settings: Settings,
    database: Database,
    tail: Tail,
    executor: Executor,
    verifying: Executor,
    *,
    rates: Rates,
) -> Gate | OpenGate:
    """Make the gate; `tail` has taken its position. Raises StartRefusal with the remedy."""
    loop = asyncio.get_running_loop()
    directory = Directory(database, executor)
    tail.listeners.append(directory.hear)
    tail.on_break.append(directory.start_over)
    path = bootstrap.place(settings.bootstrap_token_file, settings.database_url)
    await directory.load()
    is_named = path is not None and path.exists()
    # Where tokens have ended, nobody is let in again who has none.
    known = directory.was_used or is_named or vouched_for(settings)
    addresses = exposure.listening(settings)
    controls = settings.auth == "on" or (
        settings.auth == "auto" and (known or bool(exposure.reachable(addresses)))
    )
    if settings.auth == "auto" and not known and settings.allow_anonymous:
        controls = False
    try:
        exposure.refuse_anonymous(
            addresses, authenticates=controls, allowed=settings.allow_anonymous
        )
    except Exposed as error:
        raise StartRefusal(str(error)) from error
    if not controls:
        tail.listeners.remove(directory.hear)
        tail.on_break.remove(directory.start_over)
        if directory.was_used:
            log.warning("ACCESS IS NOT CONTROLLED: tokens and grants are there, and --auth is off")
        return OpenGate()
    if is_named and path is not None:
        await loop.run_in_executor(executor, adopt, database, path)
        await directory.load()
    if not directory.has_anybody and not vouched_for(settings):
        raise StartRefusal(
            "nobody could call this server: it controls access, and there is no token; make the "
            "first admin's with `stagewire admin bootstrap`, or configure --oidc-issuer or "
            "--tls-client-ca-file"
        )
    verifier = Verifier(settings) if settings.oidc_issuer else None
    if verifier is not None:
        # Nobody waits for it; a provider that can't be asked is in the log from the start.
        verifying.submit(verifier.fetch_keys)
    return Gate(directory, tail, Ledger(database, executor), verifying, verifier, rates=rates)


def vouched_for(settings: Settings) -> bool:
    """Tell whether others vouch for callers: an identity provider, or authorities."""
    return bool(settings.oidc_issuer or settings.tls_client_ca_file)


def adopt(database: Database, path: Path) -> None:
    """Make the file's token the first admin's, unless there is an admin. Raises StartRefusal."""
    if database.read(grants.has_admin):
        return
    try:
        id_, secret_hash = bootstrap.read(path)
    except ValueError as error:
        raise StartRefusal(str(error)) from error
    operations.bootstrap(database, partial(tokens.ensure_admin, secret_hash=secret_hash, id_=id_))
    if database.read(grants.has_admin):
        log.info("first admin adopted", token_id=id_, file=str(path))
    else:
        log.warning("NOBODY IS AN ADMIN: the token named here has ended", file=str(path))
