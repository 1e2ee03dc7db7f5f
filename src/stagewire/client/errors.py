"""The registry's refusals: a class for each gRPC code, a subclass for each reason.

Catch the code's class to decide what to do next (`NotFound`, `Aborted`, `Unavailable`), the
reason's class to know which refusal it was. Every `ErrorReason` of the contract has its class
here, found by name; a reason this release doesn't know is raised as its code's class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of the request that is wrong, and how to right it."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class PreconditionViolation:
    """One thing that stands in the way."""

    type: str
    subject: str
    description: str


@dataclass(frozen=True, slots=True)
class Resource:
    """What a refusal is about, e.g. type `model`, name `churn`."""

    type: str
    name: str


class StagewireError(Exception):
    """A refusal or a failed call.

    `code` says what a program does next, `reason` which refusal it was (an `ErrorReason`
    without its prefix; empty when no server answered), `retry_after` how many seconds to wait
    where waiting helps, `grpc_error` what gRPC raised.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        field_violations: Sequence[FieldViolation] = (),
        preconditions: Sequence[PreconditionViolation] = (),
        metadata: Mapping[str, str] | None = None,
        resource: Resource | None = None,
        retry_after: float | None = None,
        grpc_error: grpc.RpcError | None = None,
    ) -> None:
        """Keep what the server said."""
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.reason = reason
        self.field_violations = tuple(field_violations)
        self.preconditions = tuple(preconditions)
        self.metadata = dict(metadata or {})
        self.resource = resource
        self.retry_after = retry_after
        self.grpc_error = grpc_error


class InvalidArgument(StagewireError):
    """The request is wrong whatever the registry holds; `field_violations` says where."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class InvalidField(InvalidArgument):
    """A field breaks its limit or its format."""


class InvalidFilter(InvalidArgument):
    """A filter does not parse or names an unknown field."""


class InvalidOrderBy(InvalidArgument):
    """An order_by names no sortable field."""


class InvalidPageToken(InvalidArgument):
    """A page token is damaged or belongs to another query."""


class InvalidCursor(InvalidArgument):
    """A watch cursor is damaged."""


class InvalidUpdateMask(InvalidArgument):
    """An update mask is absent, empty, or names a field that can't be updated."""


class RequestIdReused(InvalidArgument):
    """The request_id was used for another request."""


class WebhookAddressRefused(InvalidArgument):
    """The webhook's URL leads to an address that is not public."""


class SourceUnsafe(InvalidArgument):
    """The source steps out of its path."""


class SourceNotInRun(InvalidArgument):
    """The source is a local path outside its run, or another run's."""


class NotFound(StagewireError):
    """There is no such thing; `resource` says what."""

    code = grpc.StatusCode.NOT_FOUND


class NamespaceNotFound(NotFound):
    """No such namespace."""


class ModelNotFound(NotFound):
    """No living model has or had this name."""


class VersionNotFound(NotFound):
    """The model has no such version, or it is deleted."""


class StageNotFound(NotFound):
    """The namespace defines no such stage."""


class AliasNotFound(NotFound):
    """The model has no such alias."""


class StageEmpty(NotFound):
    """No version of the model holds this stage."""


class AgentNotFound(NotFound):
    """No agent of this name has reported, or it is forgotten."""


class WebhookNotFound(NotFound):
    """There is no such webhook, or it is deleted."""


class DeliveryNotFound(NotFound):
    """The webhook has no such delivery in its history."""


class TokenNotFound(NotFound):
    """There is no such token, or not for this caller."""


class GrantNotFound(NotFound):
    """There is no such grant, or not for this caller."""


class AlreadyExists(StagewireError):
    """It is there already."""

    code = grpc.StatusCode.ALREADY_EXISTS


class NamespaceExists(AlreadyExists):
    """The namespace exists."""


class ModelExists(AlreadyExists):
    """A living model bears this name."""


class StageExists(AlreadyExists):
    """The stage exists, in any letter case."""


class AliasExists(AlreadyExists):
    """The alias is on another version and `reassign` was not set."""


class ImportConflict(AlreadyExists):
    """What is to be imported is there with other content."""


class Aborted(StagewireError):
    """Somebody else was there at the same time: read again and decide again."""

    code = grpc.StatusCode.ABORTED


class RevisionMismatch(Aborted):
    """The resource is not at expected_revision; metadata `current_revision` has the present one."""


class Contention(Aborted):
    """Concurrent transactions kept the write out; the same call may be repeated."""


class FailedPrecondition(StagewireError):
    """The registry is not in the state this needs; `preconditions` says what is in the way."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Renamed(FailedPrecondition):
    """The name is an old one; metadata `model` has the new name."""


class NameHasHistory(FailedPrecondition):
    """Taking the name would let one (name, version) pair mean two versions."""


class ModelInUse(FailedPrecondition):
    """The model, or a version of it, is in an active stage or aliased."""


class VersionInUse(FailedPrecondition):
    """The version is in an active stage or aliased."""


class StageInUse(FailedPrecondition):
    """Versions hold the stage, or another stage displaces into it."""


class NamespaceNotEmpty(FailedPrecondition):
    """The namespace still has models."""


class NamespaceProtected(FailedPrecondition):
    """The namespace can't be changed so."""


class StageOccupied(FailedPrecondition):
    """The stage is exclusive and held."""


class VersionNotReady(FailedPrecondition):
    """Only a READY version may enter a stage."""


class NothingToRollBack(FailedPrecondition):
    """The stage has no earlier holders to bring back."""


class RollbackTargetDeleted(FailedPrecondition):
    """Every earlier holder is deleted."""


class NotDeleted(FailedPrecondition):
    """The resource is not deleted."""


class Purged(FailedPrecondition):
    """The resource was purged and can't come back."""


class SecretsKeyMissing(FailedPrecondition):
    """The server has no key to encrypt a webhook's secret with."""


class WebhookDisabled(FailedPrecondition):
    """The webhook is disabled; enable it first."""


class SecretShownOnce(FailedPrecondition):
    """An earlier call made the token; metadata `token_id` says which, its secret is lost."""


class LastAdmin(FailedPrecondition):
    """Nobody could administer the registry any more."""


class OtherLog(FailedPrecondition):
    """The cursor belongs to another registry's log."""


class FilterChanged(FailedPrecondition):
    """The cursor was made under another filter."""


class PermissionsChanged(FailedPrecondition):
    """The caller sees something else than when the cursor was made."""


class OutOfRange(StagewireError):
    """A position that this log does not have."""

    code = grpc.StatusCode.OUT_OF_RANGE


class RevisionAhead(OutOfRange):
    """min_revision is above the log's head."""


class HistoryLost(RevisionAhead):
    """The registry no longer has what this client had already seen.

    Raised once, for the read that noticed; the client then works on with what there is.
    `last_seen_revision` is what it had seen, `head_revision` where the log stands now.
    """

    last_seen_revision: int = 0
    head_revision: int = 0
    log_id: str = ""


class CursorAhead(OutOfRange):
    """The cursor's revision is above the log's head."""


class LogDiverged(OutOfRange):
    """The cursor's revision is another transaction now."""


class Compacted(OutOfRange):
    """The log no longer holds what follows the cursor."""


class ResourceExhausted(StagewireError):
    """Too much at once; `retry_after` says when to try again."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class TransactionTooLarge(ResourceExhausted):
    """One call would change too much."""


class SlowConsumer(ResourceExhausted):
    """The stream's reader took nothing for too long; resume from the last cursor."""


class Overloaded(ResourceExhausted):
    """The server holds all the calls it admits."""


class TooManyWatches(ResourceExhausted):
    """The server holds all the watches it admits."""


class QuotaExceeded(ResourceExhausted):
    """A quota is used up: `metadata` says which. Waiting helps only where `retry_after` is set."""


class RateLimited(ResourceExhausted):
    """The caller, its address or the namespace calls too often; wait for `retry_after`."""


class DeadlineExceeded(StagewireError):
    """No answer in time; a write may have happened, and is safe to repeat with its request_id."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class DeadlinePassed(DeadlineExceeded):
    """The deadline had passed before work began; nothing was done."""


class Unavailable(StagewireError):
    """No server answers, after the channel's own retries."""

    code = grpc.StatusCode.UNAVAILABLE


class DatabaseUnavailable(Unavailable):
    """The server's database can't be reached."""


class ShuttingDown(Unavailable):
    """The server is stopping; another one answers."""


class IdentityProviderUnavailable(Unavailable):
    """Who vouches for the caller can't be asked."""


class PermissionDenied(StagewireError):
    """The caller may see it, but not do this.

    Metadata `subject`, `role`, `namespace`, `model`, `stage` and `alias` name the grant that
    would allow it; the message has it as a command.
    """

    code = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(StagewireError):
    """The server does not know who is calling."""

    code = grpc.StatusCode.UNAUTHENTICATED


class CredentialsMissing(Unauthenticated):
    """The call says not who makes it; give a token, or STAGEWIRE_TOKEN."""


class CredentialsInvalid(Unauthenticated):
    """The credentials are unknown or revoked, or nobody whom the server trusts signed them."""


class CredentialsExpired(Unauthenticated):
    """The credentials were good and have ended."""


class Unimplemented(StagewireError):
    """The server does not know this call: it is older than this client, or something else."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Cancelled(StagewireError):
    """The call was cancelled."""

    code = grpc.StatusCode.CANCELLED


class Internal(StagewireError):
    """A fault of the server's; its log has it."""

    code = grpc.StatusCode.INTERNAL


class SnapshotDamaged(StagewireError):
    """A snapshot is not what its end says; the watch throws it away and connects again."""

    code = grpc.StatusCode.DATA_LOSS
