"""One request on its way to the registry: who calls, in which namespace, with which fields.

An endpoint is a plain function from a `Call` to its answer. It runs in the server, on a registry,
and in MLflow's own process, on a client.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar

from google.protobuf.message import Message

from stagewire import names, pb

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stagewire.mlflow.operations import Operations
    from stagewire.mlflow.searches import Listing
    from stagewire.mlflow.shapes import Json, Shape

#: A document, one that is too long to be held, or one that another server has.
Answer: TypeAlias = "Json | Listing | Forward"

_Request = TypeVar("_Request", bound=Message)
_Answer = TypeVar("_Answer", bound=Message)


class LoggedModel(NamedTuple):
    """Where the files of a logged model are, and the run that logged it."""

    artifact_location: str
    run_id: str


class Tracking(Protocol):
    """A tracking server, as far as the registry has to ask it."""

    def logged_model(self, model_id: str, headers: Mapping[str, str], /) -> LoggedModel:
        """Ask where a logged model's files are, as the caller whose headers these are."""


class Forward(NamedTuple):
    """An answer that the tracking server has: the path and query to ask it for."""

    target: bytes


@dataclass(frozen=True)
class Call:
    """A request in the registry's terms."""

    registry: Operations
    #: Who calls, as `registry` knows callers; with a `deadline`.
    caller: Any
    namespace: str
    #: The `Idempotency-Key`, which makes a repeated write answer as the first did.
    request_id: str
    fields: Json
    headers: Mapping[str, str]
    #: Whom to ask about runs, logged models and files; None where nobody can be asked.
    upstream: Tracking | None = None

    def __getitem__(self, name: str) -> Any:
        """Give a field of the request."""
        return self.fields[name]

    def ask(self, operation: Callable[[_Request, Any], _Answer], request: _Request, /) -> _Answer:
        """Call the registry in this call's namespace."""
        known = request.DESCRIPTOR.fields_by_name
        told: Any = request
        if "namespace" in known:
            told.namespace = self.namespace
        if "request_id" in known:
            told.request_id = self.request_id
        return operation(request, self.caller)

    def with_fields(self, fields: Json) -> Call:
        """Give the same call with other fields."""
        return replace(self, fields=fields)

    @property
    def unhurried(self) -> Call:
        """Give the same call without an end to its waiting: its answer is long, and taken."""
        return replace(self, caller=replace(self.caller, deadline=None))

    @cached_property
    def stages(self) -> Mapping[str, pb.Stage]:
        """The namespace's stages by key, in their order."""
        listed = self.ask(self.registry.ListStages, pb.ListStagesRequest())
        return {names.stage_key(stage.name): stage for stage in listed.stages}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A function of the gateway, and the fields it takes."""

    shape: Shape
    work: Callable[[Call], Answer]


def takes(
    shape: Shape | None = None, /, **more: Any
) -> Callable[[Callable[[Call], Answer]], Endpoint]:
    """Make a function an endpoint that takes these fields, checked in this order."""

    def made(work: Callable[[Call], Answer]) -> Endpoint:
        return Endpoint({**(shape or {}), **more}, work)

    return made
