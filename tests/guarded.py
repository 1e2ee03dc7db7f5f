"""A server that asks who calls, its first admin's token, and calls with whatever is shown."""

from __future__ import annotations

import secrets
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.protobuf import message_factory

from stagewire import pb
from stagewire.client import statuses
from stagewire.server import servicers
from tests.servers import RunningServer

if TYPE_CHECKING:
    from types import TracebackType

METHODS = {m.name: m for service in servicers.SERVICES for m in service.methods}


def make_secret() -> str:
    """Make a token's secret as an orchestrator would."""
    return f"sw_{uuid.uuid4().hex[:16]}_{secrets.token_urlsafe(32)}"


class Door:
    """Calls on one connection, each with credentials of its own."""

    def __init__(self, address: str, token: str = "") -> None:
        """Knock at an address; `token` is shown where a call says nothing else."""
        self.channel = grpc.insecure_channel(address)
        self.token = token

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.channel.close()

    def __call__(self, method: str, request: Any = None, **shown: Any) -> Any:
        """Make a unary call; raises gRPC's error."""
        called, request = self._prepared(method, request, self.channel.unary_unary)
        return called(request, metadata=self.metadata(**shown), timeout=20)

    def stream(self, method: str, request: Any = None, **shown: Any) -> Any:
        """Begin a call whose answer is a stream."""
        called, request = self._prepared(method, request, self.channel.unary_stream)
        return called(request, metadata=self.metadata(**shown), timeout=60)

    def _prepared(self, method: str, request: Any, kind: Any) -> tuple[Any, Any]:
        found = METHODS[method]
        asked = message_factory.GetMessageClass(found.input_type)
        answered = message_factory.GetMessageClass(found.output_type)
        path = f"/{found.containing_service.full_name}/{found.name}"
        called = kind(
            path,
            request_serializer=asked.SerializeToString,
            response_deserializer=answered.FromString,
        )
        return called, asked() if request is None else request

    def metadata(
        self, *, token: str | None = None, header: str | None = None
    ) -> tuple[tuple[str, str], ...]:
        """Say who calls: with a token, with any header, or, with '', nothing."""
        shown = self.token if token is None else token
        if header is None:
            header = f"Bearer {shown}" if shown else ""
        return (("authorization", header),) if header else ()

    def refusal(self, method: str, request: Any = None, **shown: Any) -> str:
        """Make a call that must be refused, and give the reason."""
        try:
            self(method, request, **shown)
        except grpc.RpcError as error:
            return statuses.of(error).reason
        raise AssertionError(f"{method} was not refused")


class GuardedServer(RunningServer):
    """A running server with access control, and the first admin's token."""

    def __init__(
        self, database_url: str, folder: Path, *, secret: str = "", **settings: Any
    ) -> None:
        """Name a new admin's token, or the one of a server that this one stands beside."""
        self.secret = secret or make_secret()
        file = folder / "bootstrap"
        file.write_text(self.secret)
        super().__init__(database_url, bootstrap_token_file=str(file), **settings)

    def door(self, token: str | None = None) -> Door:
        """Give calls to this server: as its admin, as somebody else, or with '' as nobody."""
        return Door(self.address, self.secret if token is None else token)


def make_token(door: Door, subject: str, *scopes: pb.Scope, **fields: Any) -> tuple[str, str]:
    """Have a token made; answers its id and its secret."""
    token = pb.Token(subject=subject, scopes=scopes, **fields)
    made = door("CreateToken", pb.CreateTokenRequest(token=token))
    return made.token.id, made.secret


def grant(door: Door, subject: str, role: str, **where: str) -> str:
    """Have a role granted; answers the grant's id."""
    scope = pb.Scope(role=pb.Role.Value(f"ROLE_{role.upper()}"), **where)
    request = pb.CreateGrantRequest(grant=pb.Grant(subject=subject, scope=scope))
    return str(door("CreateGrant", request).grant.id)
