"""Records in bounded batches to a registry: in order, each batch whole, again where it helps."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stagewire import pb
from stagewire.client import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stagewire.client import Client

# Well below what one call may hold (4 MiB) and one transaction write (1 MiB, 1,000 changes).
MOST_RECORDS = 500
MOST_BYTES = 400 * 1024
_PLACE = re.compile(r"records\[(\d+)\]")


@dataclass(frozen=True)
class Skipped:
    """A record that was not imported, and where it stood."""

    place: str
    subject: str
    description: str


@dataclass
class Sum:
    """What came of all batches."""

    imported: int = 0
    unchanged: int = 0
    skipped: list[Skipped] = field(default_factory=list)

    def add(self, other: Sum) -> None:
        """Add what came of others."""
        self.imported += other.imported
        self.unchanged += other.unchanged
        self.skipped += other.skipped


@dataclass
class Sender:
    """Sends records with the places where they stood; `told` hears how many are done."""

    client: Client
    on_conflict: pb.ImportConflictPolicy.ValueType
    validate_only: bool
    reason: str = ""
    told: Callable[[int], object] = lambda _count: None
    sum: Sum = field(default_factory=Sum)
    _waiting: list[tuple[str, pb.RegistryRecord]] = field(default_factory=list)
    _bytes: int = 0
    _models: set[str] = field(default_factory=set)
    _versions: set[tuple[str, int]] = field(default_factory=set)

    def send_all(self, records: Iterable[tuple[str, pb.RegistryRecord]]) -> Sum:
        """Send everything and give the sum."""
        for place, record in records:
            self.send(place, record)
        self.flush()
        return self.sum

    def send(self, place: str, record: pb.RegistryRecord) -> None:
        """Take one record on; it is sent with others."""
        size = record.ByteSize()
        if self._waiting and (
            len(self._waiting) >= MOST_RECORDS or self._bytes + size > MOST_BYTES
        ):
            self.flush()
        self._waiting.append((place, record))
        self._bytes += size

    def flush(self) -> None:
        """Send what waits."""
        batch = [one for one in self._waiting if not self._belongs_to_skipped(*one)]
        count = len(self._waiting)
        self._waiting, self._bytes = [], 0
        if batch:
            self._send(batch)
        self.told(count)

    def _belongs_to_skipped(self, place: str, record: pb.RegistryRecord) -> bool:
        """Leave out what belongs to a model or version that something else stands for here."""
        kind = record.WhichOneof("record") or ""
        message = getattr(record, kind)
        model_id = message.model.id if kind == "model" else getattr(message, "model_id", "")
        number = getattr(message, "version", 0) if kind in {"tenure", "alias", "points"} else 0
        gone = model_id in self._models or (
            kind == "name" and message.renamed_model_id in self._models
        )
        if not gone and (model_id, number) not in self._versions:
            return False
        self.sum.skipped.append(Skipped(place, f"{kind} of {model_id}", "goes with what it is of"))
        return True

    def _send(self, batch: list[tuple[str, pb.RegistryRecord]]) -> None:
        request = pb.ImportRegistryRequest(
            records=[record for _, record in batch],
            on_conflict=self.on_conflict,
            validate_only=self.validate_only,
            reason=self.reason,
        )
        try:
            answer = self.client.configuration.ImportRegistry(request)
        except errors.StagewireError as error:
            if error.reason == "TRANSACTION_TOO_LARGE" and len(batch) > 1:
                half = len(batch) // 2
                self._send(batch[:half])
                self._send(batch[half:])
                return
            raise _placed(error, [place for place, _ in batch]) from None
        self.sum.imported += answer.imported
        self.sum.unchanged += answer.unchanged
        for conflict in answer.conflicts:
            place, record = batch[conflict.index]
            self.sum.skipped.append(Skipped(place, conflict.subject, conflict.description))
            if conflict.foreign_model_id:
                self._models.add(conflict.foreign_model_id)
            elif record.HasField("version"):
                self._versions.add((record.version.model_id, record.version.version))


def _placed(error: errors.StagewireError, places: list[str]) -> errors.StagewireError:
    """Say in a refusal where the record stood, rather than its place in the batch."""

    def place(found: re.Match[str]) -> str:
        index = int(found[1])
        return places[index] if index < len(places) else found[0]

    known: dict[str, Any] = {
        "code": error.code,
        "reason": error.reason,
        "metadata": error.metadata,
        "grpc_error": error.grpc_error,
    }
    return type(error)(_PLACE.sub(place, error.message), **known)
