"""A batch of records on its way in: what it has, what is there, and what came of it so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from stagewire import errors, pb
from stagewire.store import lookup, schema

if TYPE_CHECKING:
    from collections.abc import Iterable

    import sqlalchemy as sa

    from stagewire.store.transactions import Tx

#: What a comparison leaves out when a record does not say it.
_UNSAID = ("create_time", "update_time", "activity_time", "content_digest")
#: A version: its model's id and its number.
Place = tuple[str, int]


@dataclass
class Batch:
    """What one call has to import, and what came of it so far."""

    tx: Tx
    lenient: bool
    records: dict[str, list[tuple[int, Any]]]
    conflicts: list[pb.ImportConflict] = field(default_factory=list)
    imported: int = 0
    unchanged: int = 0
    #: Models by id: rows that are there and values of those that are new.
    owners: dict[str, Any] = field(default_factory=dict)
    defined: dict[str, dict[str, lookup.Row]] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)
    new_models: set[str] = field(default_factory=set)
    new_versions: dict[Place, None] = field(default_factory=dict)
    #: Versions that got stages or aliases, and those of them that got stages.
    moved: dict[Place, None] = field(default_factory=dict)
    staged: set[Place] = field(default_factory=set)
    #: Versions that are here with other content: what they hold is not added to.
    skipped: set[Place] = field(default_factory=set)
    #: What versions that were there were found by before.
    before: dict[Place, pb.MatchKeys] = field(default_factory=dict)

    def conflict(self, index: int, subject: str, description: str, *, foreign: str = "") -> None:
        """Note that something else is there."""
        self.conflicts.append(
            pb.ImportConflict(
                index=index, subject=subject, description=description, foreign_model_id=foreign
            )
        )
        if foreign:
            self.foreign.add(foreign)

    def owner(self, index: int, kind: str, model_id: str) -> Any | None:
        """Find the model that a record belongs to, or None when nothing is to be done with it.

        Refuses MODEL_NOT_FOUND.
        """
        owner = self.owners.get(model_id)
        if owner is not None:
            return owner
        if model_id in self.foreign:
            self.conflict(index, f"model {model_id}", "its model was skipped", foreign=model_id)
        elif self.lenient:
            self.imported += 1
        else:
            raise missing(
                "MODEL_NOT_FOUND",
                f"records[{index}].{kind}.model_id",
                f"there is no model {model_id!r}; import the model first",
            )
        return None

    def present(self, places: Iterable[Place]) -> dict[Place, sa.Row[Any]]:
        """Read the versions that are there."""
        wanted = list(dict.fromkeys(places))
        if not wanted:
            return {}
        form, values = lookup.keys(self.tx, wanted)
        statement = lookup.asked_for(form, schema.Version).add_columns(schema.Version)
        return {(r.model_id, r.number): r for r in self.tx.rows(statement, **values)}

    def version(self, index: int, kind: str, place: Place, found: Any) -> Any | None:
        """Give the version that a record is about, or None when nothing is to be done with it.

        Refuses VERSION_NOT_FOUND.
        """
        if place in found:
            return found[place]
        if self.lenient:
            self.imported += 1
            return None
        raise missing(
            "VERSION_NOT_FOUND",
            f"records[{index}].{kind}.version",
            f"model {self.owners[place[0]].name!r} has no version {place[1]}; import it first",
        )

    def goes_with_skipped(self, index: int, place: Place) -> bool:
        """Leave out what belongs to a version that was not imported, and say so."""
        if place not in self.skipped:
            return False
        self.conflict(index, f"what belongs to version {place[1]}", "goes with it, and is left out")
        return True

    def raise_next_number(self, model_id: str, number: int) -> None:
        """Have a model go on from a number."""
        self.tx.update(schema.Model, {"id": model_id}, next_number=number)
        owner = self.owners[model_id]
        values = owner._asdict() if hasattr(owner, "_asdict") else vars(owner)
        self.owners[model_id] = SimpleNamespace(**{**values, "next_number": number})


def missing(reason: str, path: str, text: str) -> errors.RegistryError:
    """Build the refusal of a record that builds on what is not there."""
    return errors.not_found(reason, "record", path, f"{path}: {text}")


def differing(wanted: Any, found: Any) -> list[str]:
    """Name the fields in which a record and what is there differ, leaving out what is unsaid."""
    return [
        descriptor.name
        for descriptor in wanted.DESCRIPTOR.fields
        if not (descriptor.name in _UNSAID and not _said(wanted, descriptor))
        and getattr(wanted, descriptor.name) != getattr(found, descriptor.name)
    ]


def _said(message: Any, descriptor: Any) -> bool:
    if descriptor.has_presence:
        return bool(message.HasField(descriptor.name))
    return bool(getattr(message, descriptor.name))


def differs(fields: Iterable[str]) -> str:
    """Say of a conflict in what it lies."""
    return (
        f"is here with other content: {', '.join(fields)}; keep what is here by skipping, or "
        "import into another registry"
    )
