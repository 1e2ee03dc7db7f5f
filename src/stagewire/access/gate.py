"""The gate that every call passes: credentials in, a caller with its rights out, or a refusal.

Whoever was let in before is known by a hash of what it sent, until a token or a grant changes:
then no database is asked, and nothing is verified twice. A server that can't tell whether it is
up to date lets nobody in, because it can't tell either who was turned away since.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from cachetools import LRUCache

from stagewire import pb, rights
from stagewire.callers import ANONYMOUS, Caller
from stagewire.errors import RegistryError
from stagewire.service import tokens
from stagewire.service.refusals import Attempt
from stagewire.service.tail import not_fresh

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from stagewire.access.directory import Directory
    from stagewire.access.ledger import Ledger
    from stagewire.access.oidc import Claims, Verifier
    from stagewire.access.rates import Rates
    from stagewire.rights import Scope
    from stagewire.service.tail import Tail

_TOKEN = pb.AUTHENTICATION_METHOD_TOKEN
_OIDC = pb.AUTHENTICATION_METHOD_OIDC
_CERTIFICATE = pb.AUTHENTICATION_METHOD_CERTIFICATE
#: More are recomputed when they call again: some microseconds each.
_MOST_KNOWN = 10_000
_LONGEST_HEADER = 24 * 1024
#: What a caller does next depends on these here at once; elsewhere the tail brings them.
SETTLED = frozenset({"CreateToken", "RevokeToken", "CreateGrant", "DeleteGrant"})
_SETTLE_SECONDS = 2.0
_DENIED = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
_HOW = "send `authorization: Bearer TOKEN`"


class Shown(Protocol):
    """A client by the certificate of its connection."""

    @property
    def name(self) -> str:
        """`cert:` and the name in it."""

    @property
    def expires(self) -> float:
        """When it ends, in seconds since 1970."""


class Credentials(NamedTuple):
    """What a call shows of whoever makes it."""

    authorization: str = ""
    certificate: Shown | None = None
    #: Its address, without the port.
    peer: str = ""


@dataclass(frozen=True, slots=True)
class _Known:
    """Somebody who was let in, as of a state of the directory."""

    caller: Caller
    changes: int


class Gate:
    """Lets callers in by their credentials. For the event loop's thread only."""

    controls = True
    #: Methods after which `settle` is waited for.
    settles = SETTLED

    def __init__(
        self,
        directory: Directory,
        tail: Tail,
        ledger: Ledger,
        executor: Executor,
        verifier: Verifier | None = None,
        *,
        rates: Rates | None = None,
    ) -> None:
        """Judge by `directory`, and by `verifier` whoever an identity provider vouches for.

        `rates` says how often an address may be wrong.
        """
        self.directory = directory
        self.ledger = ledger
        self._tail = tail
        self._executor = executor
        self._verifier = verifier
        self._rates = rates
        self._known: LRUCache[bytes, _Known] = LRUCache(_MOST_KNOWN)

    @property
    def changes(self) -> int:
        """Grows whenever somebody's rights may be others than they were."""
        return self.directory.changes

    @property
    def listeners(self) -> list[Callable[[], None]]:
        """Called whenever `changes` grew."""
        return self.directory.listeners

    async def admit(self, shown: Credentials, deadline: float | None = None) -> Caller:
        """Say who calls. Refuses UNAUTHENTICATED, and UNAVAILABLE while nothing is certain."""
        if not self._tail.is_fresh or not self.directory.whole:
            raise not_fresh()
        try:
            caller = await self._whom(shown)
        except RegistryError as error:
            if error.code == "UNAUTHENTICATED" and self._rates is not None:
                self._rates.note_guess(shown.peer)
            raise
        if caller.token_id:
            self.ledger.note_use(caller.token_id)
        return caller if deadline is None else _until(caller, deadline)

    async def _whom(self, shown: Credentials) -> Caller:
        if shown.authorization:
            caller = await self._by_header(shown.authorization, shown.peer)
        elif shown.certificate is not None:
            caller = self._by_certificate(shown.certificate)
        else:
            raise _refused(
                "CREDENTIALS_MISSING",
                f"this server wants to know who calls; {_HOW}",
            )
        _refuse_ended(caller)
        return caller

    def _look_closely(self, peer: str) -> None:
        """Let what only a database or a provider knows be looked up, unless it is guesses."""
        if self._rates is not None:
            self._rates.meet(peer)

    async def _by_header(self, header: str, peer: str) -> Caller:
        key = hashlib.sha256(header.encode(errors="surrogatepass")).digest()
        known = self._known.get(key)
        if known is not None and known.changes == self.directory.changes:
            return known.caller
        secret = _secret(header)
        if secret.startswith(f"{tokens.PREFIX}_"):
            caller = await self._by_token(secret, peer)
            # Kept with the state it was judged by, which may have gone on meanwhile.
            self._known[key] = _Known(caller, self.directory.changes)
            return caller
        return await self._by_provider(secret, peer)

    async def _by_token(self, secret: str, peer: str) -> Caller:
        id_ = secret.split("_", 2)[1]
        token = self.directory.token(id_)
        if token is None:
            self._look_closely(peer)
            token = await self.directory.find(id_)
        if token is None or not hmac.compare_digest(token.secret_hash, tokens.hashed(secret)):
            raise _refused(
                "CREDENTIALS_INVALID",
                "this token is none of this registry's, or it was revoked; have another made by "
                "`stagewire token create`",
            )
        caller = Caller(name=token.subject, method=_TOKEN, token_id=token.id, expires=token.expires)
        return self._with_rights(caller, narrowed_to=token.scopes)

    async def _by_provider(self, secret: str, peer: str) -> Caller:
        if self._verifier is None:
            raise _refused(
                "CREDENTIALS_INVALID",
                f"this is no token of this registry; {_HOW}, which begins with {tokens.PREFIX}_",
            )
        claims = self._verifier.known(secret)
        if claims is None:
            self._look_closely(peer)
            loop = asyncio.get_running_loop()
            claims = await loop.run_in_executor(self._executor, self._verifier.verify, secret)
        return self._vouched_for(claims)

    def _vouched_for(self, claims: Claims) -> Caller:
        caller = Caller(
            name=claims.subject, method=_OIDC, groups=claims.groups, expires=claims.expires
        )
        return self._with_rights(replace(caller, given=frozenset(claims.roles)))

    def _by_certificate(self, shown: Shown) -> Caller:
        return self._with_rights(
            Caller(name=shown.name, method=_CERTIFICATE, expires=shown.expires)
        )

    def _with_rights(
        self, caller: Caller, *, narrowed_to: frozenset[Scope] | None = None
    ) -> Caller:
        scopes = self.directory.scopes_of(caller.subjects) | caller.given
        return replace(caller, rights=rights.of(scopes, narrowed_to or None))

    def renewed(self, caller: Caller) -> Caller:
        """Give a caller with the rights of now. Refuses UNAUTHENTICATED once it is nobody."""
        _refuse_ended(caller)
        if not caller.token_id:
            return self._with_rights(caller)
        token = self.directory.token(caller.token_id)
        if token is None:
            raise _refused("CREDENTIALS_INVALID", "this token was revoked; use another one")
        return self._with_rights(caller, narrowed_to=token.scopes)

    def note_refusal(
        self,
        shown: Credentials,
        caller: Caller | None,
        method: str,
        error: RegistryError,
        request: Any = None,
    ) -> None:
        """Keep that a call was refused for want of credentials or grants."""
        if error.code not in _DENIED:
            return
        space, model = getattr(request, "namespace", ""), getattr(request, "model", "")
        # What is to be made is a message with a name.
        space, model = getattr(space, "name", space), getattr(model, "name", model)
        self.ledger.note_refusal(
            Attempt(
                caller="" if caller is None else caller.name,
                peer=shown.peer,
                method=method,
                reason=error.reason,
                namespace=space if isinstance(space, str) else "",
                model=model if isinstance(model, str) else "",
            )
        )

    async def settle(self, answer: Any) -> None:
        """Wait until what a call changed of tokens and grants is so on this server."""
        try:
            async with asyncio.timeout(_SETTLE_SECONDS):
                await self.directory.reach(answer.revision)
        except TimeoutError:
            # The tail is late; it refuses everybody before long.
            return


class OpenGate:
    """The gate of a server without access control: everybody may do everything."""

    controls = False
    settles: frozenset[str] = frozenset()
    changes = 0

    def __init__(self) -> None:
        """Let everybody in."""
        self.listeners: list[Callable[[], None]] = []

    async def admit(self, _shown: Credentials, deadline: float | None = None) -> Caller:
        """Let anybody in as nobody."""
        return ANONYMOUS if deadline is None else Caller(deadline=deadline)

    def renewed(self, caller: Caller) -> Caller:
        """Give the same caller: nothing about it changes."""
        return caller

    def note_refusal(
        self,
        _shown: Credentials,
        _caller: Caller | None,
        _method: str,
        _error: RegistryError,
        _request: Any = None,
    ) -> None:
        """Keep nothing: nobody is refused."""

    async def settle(self, _answer: Any) -> None:
        """Wait for nothing."""


def _until(caller: Caller, deadline: float) -> Caller:
    return Caller(
        caller.name,
        deadline,
        caller.rights,
        caller.method,
        caller.groups,
        caller.token_id,
        caller.expires,
        caller.given,
    )


def _refuse_ended(caller: Caller) -> None:
    if caller.expires is not None and time.time() >= caller.expires:
        raise _refused("CREDENTIALS_EXPIRED", "these credentials have ended; get new ones")


def _secret(header: str) -> str:
    """Read a token from an `authorization` header: a bearer's, or a password."""
    scheme, _, value = header.partition(" ")
    value = value.strip()
    if len(header) <= _LONGEST_HEADER:
        if scheme.lower() == "bearer" and value:
            return value
        if scheme.lower() == "basic":
            try:
                decoded = base64.b64decode(value, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                decoded = ""
            password = decoded.partition(":")[2]
            if password:
                return password
    raise _refused(
        "CREDENTIALS_INVALID",
        f"`authorization` can't be read; {_HOW}, or Basic with the token as password",
    )


def _refused(reason: str, message: str) -> RegistryError:
    return RegistryError(reason, message)
