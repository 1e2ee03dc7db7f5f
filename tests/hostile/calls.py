"""Hostile calls over gRPC: bytes as they are sent, and all that a call ends in."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc

from tests.hostile.barrages import Answer, Gun, Kind
from tests.hostile.places import Place, Writer, methods, places
from tests.hostile.texts import CLIMBING, climbing_to

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hostile.targets import Target

_DEADLINE_SECONDS = 20.0
#: Of an endless answer, so many messages are looked at.
_MOST_MESSAGES = 3

#: How a caller may be refused; anything else is a fault of the server's.
REFUSALS = frozenset(
    {
        *("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "ABORTED"),
        *("OUT_OF_RANGE", "UNAUTHENTICATED", "PERMISSION_DENIED"),
    }
)


class Caller:
    """Calls a target's RPCs with bytes."""

    def __init__(self, target: Target, channel: grpc.Channel) -> None:
        """Call over this channel, with the target's credentials."""
        self._target = target
        self._channel = channel

    def call(self, place: Place, request: bytes, **given: Any) -> Answer:
        """Call an RPC, and give what it ends in."""
        given = {"metadata": self._target.credentials, "timeout": _DEADLINE_SECONDS, **given}
        rpc: Any = self._channel.unary_stream(place.rpc)
        call = rpc(request, **given)
        said = bytearray()
        try:
            for number, message in enumerate(call, start=1):
                said += message
                if place.method.server_streaming and number == _MOST_MESSAGES:
                    call.cancel()
                    return Answer("OK", bytes(said))
        except grpc.RpcError as error:
            trailers = [value for _, value in call.trailing_metadata() or ()]
            told = [v if isinstance(v, bytes) else v.encode() for v in trailers]
            details = (call.details() or "").encode(errors="replace")
            return Answer(error.code().name, b"\n".join((details, *told, bytes(said))))
        return Answer("OK", bytes(said))


@contextmanager
def caller(target: Target) -> Iterator[Caller]:
    """Connect."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_metadata_size", 1 << 20)]
    with grpc.insecure_channel(target.address, options=options) as channel:
        yield Caller(target, channel)


@contextmanager
def _texts(target: Target) -> Iterator[Gun]:
    texts, everywhere = climbing_to(target.secret), places()
    writer = Writer(**target.ids)
    with caller(target) as calls:

        def shoot(number: int) -> Answer:
            place = everywhere[number % len(everywhere)]
            # Each round over the places moves the texts on, until all have met.
            text = texts[(number + number // len(everywhere)) % len(texts)]
            return calls.call(place, writer.with_text(place, text))

        yield shoot


@contextmanager
def _texts_of_nobody(target: Target) -> Iterator[Gun]:
    with _texts(target.from_nobody()) as gun:
        yield gun


def kinds() -> list[Kind]:
    """List the kinds of hostile calls."""
    count = len(places())
    return [
        Kind(
            "gRPC: climbing texts in every field",
            REFUSALS | {"OK"},
            _texts,
            few=4 * count,
            many=len(CLIMBING) * count,
        ),
        Kind(
            "gRPC: the same from nobody",
            frozenset({"UNAUTHENTICATED"}),
            _texts_of_nobody,
            few=count,
        ),
    ]


def usual(target: Target) -> dict[str, Answer]:
    """Call every RPC with nothing hostile in it."""
    writer = Writer(**target.ids)
    with caller(target) as calls:
        return {
            method.name: calls.call(Place(method, ()), writer.usual(method)) for method in methods()
        }
