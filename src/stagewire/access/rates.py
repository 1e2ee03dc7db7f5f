"""How often calls are taken: of one caller, on one namespace, and from an address of guessers.

Each server counts for itself, in memory that is bounded however many call: whoever has not called
for longest is forgotten first, and may then call as if never seen.
"""

from __future__ import annotations

import ipaddress
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from throttled import rate_limiter, store
from throttled.rate_limiter.gcra import GCRARateLimiter

from stagewire import names
from stagewire.errors import QuotaViolation, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor

    from stagewire.access.spaces import Spaces
    from stagewire.callers import Caller

#: What is allowed at once is what comes in so many seconds; guessers get ten.
_BURST_SECONDS = 2
_GUESSES_SECONDS = 10
_MOST_KNOWN = 10_000
#: Whoever has one address of a network of IPv6 has all of these.
_NETWORK_BITS = 64


class Rates:
    """The rates of one server. For the event loop's thread only; some microseconds a call."""

    def __init__(self, spaces: Spaces, *, per_caller: int, refused_per_address: int) -> None:
        """Take so many calls a second of each known caller, and refuse as many from an address.

        0 turns either off.
        """
        self._spaces = spaces
        self._per_caller = per_caller
        self._caller_limit = _limiter(per_caller) if per_caller else None
        self._space_limits: dict[str, tuple[int, GCRARateLimiter]] = {}
        self._refused_per_address = refused_per_address
        self._guesses = (
            _limiter(refused_per_address, _GUESSES_SECONDS) if refused_per_address else None
        )

    def check(self, caller: Caller, space: str) -> None:
        """Count a call. Refuses RATE_LIMITED where it is one too many.

        While access is not controlled callers are not known, and are not told apart.
        """
        if self._caller_limit is not None and caller.method:
            wait = _wait(self._caller_limit, caller.name)
            if wait is not None:
                raise _limited(
                    "caller_requests_per_second",
                    self._per_caller,
                    caller.name,
                    f"{caller.name} calls more often than {self._per_caller:,} times a second, "
                    "which one caller may on a server",
                    wait,
                )
        most = self._spaces.quota(space).requests_per_second
        if most:
            self._check_space(space, most)

    def _check_space(self, space: str, most: int) -> None:
        known = self._space_limits.get(space)
        if known is None or known[0] != most:
            if len(self._space_limits) >= _MOST_KNOWN:
                self._space_limits.clear()
            # With a memory of its own: what was asked for under another quota does not count.
            known = (most, _limiter(most, known=1))
            self._space_limits[space] = known
        wait = _wait(known[1], space)
        if wait is not None:
            raise _limited(
                "requests_per_second",
                most,
                f"namespace:{space}",
                f"namespace {space!r} is called more often than its quota of {most:,} times a "
                "second on a server; an admin of the registry can raise it: stagewire namespace "
                f"update {space} --requests-per-second N",
                wait,
            )

    def meet(self, peer: str) -> None:
        """Let an address have credentials looked at that nobody here knows. Refuses RATE_LIMITED.

        It is not counted: only what is refused is.
        """
        if self._guesses is not None:
            state = self._guesses.peek(_network(peer))
            if state.remaining < 1:
                raise self._guessed(peer, state.retry_after)

    def note_guess(self, peer: str) -> None:
        """Count a call refused for its credentials. Refuses RATE_LIMITED in its place."""
        if self._guesses is not None:
            wait = _wait(self._guesses, _network(peer))
            if wait is not None:
                raise self._guessed(peer, wait)

    def _guessed(self, peer: str, wait: float) -> RegistryError:
        return _limited(
            "refused_calls_per_second",
            self._refused_per_address,
            f"address:{_network(peer)}",
            "too many calls without valid credentials come from this address; mend those",
            wait,
        )


def space_of(request: Any) -> str:
    """Give the namespace that a request is about; of several the first, of none ''."""
    return _space_getter(request.DESCRIPTOR)(request)


@cache
def _space_getter(message: Descriptor) -> Callable[[Any], str]:
    fields = message.fields_by_name
    if "namespace" in fields and fields["namespace"].message_type is None:
        read = attrgetter("namespace")
        return lambda request: read(request) or names.DEFAULT_NAMESPACE
    if message.name in _NAMED:
        return attrgetter("name")
    if message.name == "WatchRequest":
        return lambda request: next(iter(request.filter.namespaces), names.DEFAULT_NAMESPACE)
    return lambda _request: ""


#: Requests whose `name` is a namespace's.
_NAMED = frozenset({"GetNamespaceRequest", "UpdateNamespaceRequest", "DeleteNamespaceRequest"})


def _limiter(
    per_second: int, seconds: int = _BURST_SECONDS, *, known: int = _MOST_KNOWN
) -> GCRARateLimiter:
    quota = rate_limiter.per_sec(per_second, burst=per_second * seconds)
    return GCRARateLimiter(quota, store.MemoryStore(options={"MAX_SIZE": known}))


def _wait(limiter: GCRARateLimiter, key: str) -> float | None:
    """Count one; answer None, or how long to wait where it is one too many."""
    result = limiter.limit(key)
    return max(result.state.retry_after, 0.001) if result.limited else None


def _network(peer: str) -> str:
    """Give the network that counts as one address."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv4Address):
        return peer
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _NETWORK_BITS), strict=False))


def _limited(quota: str, limit: int, subject: str, text: str, wait: float) -> RegistryError:
    return RegistryError(
        "RATE_LIMITED",
        f"{text}; try again in {wait:.3g} s",
        quotas=[QuotaViolation(subject, text)],
        metadata={"quota": quota, "limit": str(limit), "subject": subject},
        retry_after_seconds=wait,
    )
