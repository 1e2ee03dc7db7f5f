"""The rules of stages, on plain values: who enters, who is displaced, who comes back.

A `Board` holds which stages the versions concerned are in, plays moves on it, and says at the end
what changed. It knows no rows and no messages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stagewire import errors, pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TRANSITION = pb.STAGE_ENTRY_CAUSE_TRANSITION
DISPLACEMENT = pb.STAGE_ENTRY_CAUSE_DISPLACEMENT
ROLLBACK = pb.STAGE_ENTRY_CAUSE_ROLLBACK
#: Where MLflow's words send what is retired, by key.
ARCHIVED = "archived"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a stage's definition says about entering it; stages are named by key."""

    name: str
    active: bool
    occupancy: pb.StageOccupancy.ValueType
    displace_to: str


@dataclass(frozen=True, slots=True)
class Entry:
    """How a version came to be in a stage."""

    cause: pb.StageEntryCause.ValueType
    displaced_from: str = ""


@dataclass(slots=True)
class Board:
    """One model's versions in stages while moves are played."""

    model: str
    rules: Mapping[str, Rules]
    before: dict[tuple[str, int], Entry]
    now: dict[tuple[str, int], Entry] = field(init=False)
    forward: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Start from where things stand."""
        self.now = dict(self.before)

    def holders(self, stage: str) -> set[int]:
        """Give the versions in a stage."""
        return {number for key, number in self.now if key == stage}

    def enter(
        self, number: int, stage: str, displace: pb.Displacement.ValueType, *, leave_others: bool
    ) -> None:
        """Move a version into a stage. Refuses STAGE_OCCUPIED."""
        others = self.holders(stage) - {number}
        if others and self._displaces(stage, displace, others):
            for other in sorted(others):
                if displace == pb.DISPLACEMENT_RETIRE:
                    self._retire(other, stage)
                else:
                    self._displace(other, stage)
        if leave_others:
            self.leave_all(number, besides=stage)
        if (stage, number) not in self.now:
            self.now[stage, number] = Entry(TRANSITION)
        self.forward.add(stage)

    def leave(self, number: int, stage: str) -> None:
        """Take a version out of a stage; one that is not in it stays where it is."""
        self.now.pop((stage, number), None)

    def leave_all(self, number: int, *, besides: str = "") -> None:
        """Take a version out of every stage."""
        for stage, held in list(self.now):
            if held == number and stage != besides:
                self.leave(number, stage)

    def settle(self) -> None:
        """Take back displacements of versions that a later move put into an active stage.

        So a swap in one batch archives nobody.
        """
        for (stage, number), entry in list(self.now.items()):
            fresh = entry.cause == DISPLACEMENT and (stage, number) not in self.before
            if fresh and self._in_use(number, besides=stage):
                self.leave(number, stage)

    def restore(self, stage: str, target: Iterable[int]) -> None:
        """Make `target` the stage's holders again, undoing displacements on both sides."""
        wanted = set(target)
        archive = self.rules[stage].displace_to
        for number in sorted(self.holders(stage) - wanted):
            self._displace(number, stage)
        for number in sorted(wanted - self.holders(stage)):
            self.now[stage, number] = Entry(ROLLBACK)
            there = self.now.get((archive, number))
            if there is not None and there.displaced_from == stage:
                self.leave(number, archive)

    def is_defined(self, stage: str, entry: Entry) -> bool:
        """Tell whether somebody is in a stage because the definition of another says so.

        Whoever retires a version chooses the archive instead, which may be any stage.
        """
        if entry.cause != DISPLACEMENT:
            return False
        return not self.rules[stage].active or self.rules[entry.displaced_from].displace_to == stage

    def entered(self) -> list[tuple[str, int, Entry]]:
        """List what is held now and was not before."""
        return sorted(
            (
                (stage, number, entry)
                for (stage, number), entry in self.now.items()
                if (stage, number) not in self.before
            ),
            key=lambda item: item[:2],
        )

    def left(self) -> list[tuple[str, int]]:
        """List what was held before and is not now."""
        return sorted(key for key in self.before if key not in self.now)

    def _displaces(self, stage: str, displace: pb.Displacement.ValueType, others: set[int]) -> bool:
        rules = self.rules[stage]
        occupancy = rules.occupancy
        if occupancy == pb.STAGE_OCCUPANCY_EXCLUSIVE_REFUSING or (
            occupancy == pb.STAGE_OCCUPANCY_EXCLUSIVE and displace == pb.DISPLACEMENT_KEEP
        ):
            held = ", ".join(str(number) for number in sorted(others))
            raise errors.precondition(
                "STAGE_OCCUPIED",
                f"{self.model}/{rules.name}",
                f"stage {rules.name!r} takes one version at a time and is held by version {held} "
                f"of model {self.model!r}; remove it from the stage first",
            )
        if displace == pb.DISPLACEMENT_UNSPECIFIED:
            return occupancy in (pb.STAGE_OCCUPANCY_DISPLACING, pb.STAGE_OCCUPANCY_EXCLUSIVE)
        return displace in (pb.DISPLACEMENT_ARCHIVE, pb.DISPLACEMENT_RETIRE)

    def _retire(self, number: int, stage: str) -> None:
        """Take a version out of every active stage, into the archive."""
        for key, held in list(self.now):
            if held == number and (key == stage or self.rules[key].active):
                self.leave(number, key)
        archive = ARCHIVED if ARCHIVED in self.rules else self.rules[stage].displace_to
        if (archive, number) not in self.now:
            self.now[archive, number] = Entry(DISPLACEMENT, displaced_from=stage)

    def _displace(self, number: int, stage: str) -> None:
        self.leave(number, stage)
        archive = self.rules[stage].displace_to
        if archive and not self._in_use(number) and (archive, number) not in self.now:
            self.now[archive, number] = Entry(DISPLACEMENT, displaced_from=stage)

    def _in_use(self, number: int, *, besides: str = "") -> bool:
        return any(
            held == number and key != besides and self.rules[key].active for key, held in self.now
        )
