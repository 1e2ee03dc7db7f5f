"""`stagewire health`: is a server there, and does it serve. What probes and images call."""

from typing import Annotated

import grpc
import typer
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from stagewire.cli import output
from stagewire.cli.arguments import finite_seconds
from stagewire.cli.sessions import Session, command
from stagewire.client import statuses

app = typer.Typer()

#: grpc.health.v1.HealthCheckResponse.ServingStatus, which comes with the server's
#: dependencies only. Its two messages have one field each, numbered 1 like the wrappers',
#: and so the same bytes.
_STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


@command(
    app,
    "health",
    examples=["stagewire health", "stagewire health --address registry:50051 --timeout 2"],
)
def health(
    session: Session,
    *,
    service: Annotated[
        str,
        typer.Option("--service", metavar="NAME", help="One service; the whole server by default."),
    ] = "",
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait.")
    ] = 5.0,
) -> None:
    """Ask grpc.health.v1 whether the server serves; exit 1 unless it does."""
    seconds = finite_seconds("--timeout", timeout)
    with session.channel() as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=Int32Value.FromString,
        )
        try:
            answer: Int32Value = check(StringValue(value=service), timeout=seconds)
        except grpc.RpcError as error:
            raise statuses.of(error) from error
    status = _STATUSES[answer.value] if 0 <= answer.value < len(_STATUSES) else str(answer.value)
    output.show_plain({"status": status}, session.output, name=status, text=status)
    if status != "SERVING":
        raise typer.Exit(1)
