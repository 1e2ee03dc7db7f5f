"""A registry of dictionaries: what the real one must agree with, refusals included.

It is written from the contract's words alone and shares no code with the product: names are
tables of who owns which number, a stage's past is a list of sets.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ACTIVE = {"Staging", "Production"}
STAGES = ("Staging", "Production", "Archived")
DISPLACES_TO = {"Staging": "Archived", "Production": "Archived"}


class Refused(Exception):
    """The call is refused with this reason."""


@dataclass
class Move:
    """What a stage held after a change, and the change that undoing it goes back to."""

    holders: frozenset[int]
    undo: int | None


@dataclass
class SimpleVersion:
    """A version: which stages it is in, and whether displacement put it there."""

    deleted: bool = False
    stages: dict[str, str] = field(default_factory=dict)
    aliases: set[str] = field(default_factory=set)


@dataclass(eq=False)
class SimpleModel:
    """A model by identity."""

    name: str
    next: int
    deleted: bool = False
    versions: dict[int, SimpleVersion] = field(default_factory=dict)
    moves: dict[str, list[Move]] = field(default_factory=lambda: {s: [] for s in STAGES})

    def holders(self, stage: str) -> frozenset[int]:
        """Who is in a stage now."""
        return frozenset(n for n, v in self.versions.items() if stage in v.stages)


@dataclass
class SimpleName:
    """What is known of a name."""

    bearer: SimpleModel | None = None
    renamed: SimpleModel | None = None
    next: int = 1
    owners: dict[int, SimpleModel] = field(default_factory=dict)


class SimpleRegistry:
    """The whole registry in memory."""

    def __init__(self) -> None:
        """Start empty."""
        self.names: dict[str, SimpleName] = {}
        self.models: list[SimpleModel] = []

    def create_model(self, name: str) -> SimpleModel:
        """Register a model."""
        known = self.names.setdefault(name, SimpleName())
        if known.bearer:
            raise Refused("MODEL_EXISTS")
        made = SimpleModel(name, known.next)
        known.bearer = made
        self.models.append(made)
        return made

    def read(self, name: str) -> SimpleModel:
        """Whom a name means to a reader."""
        known = self.names.get(name)
        for found in (known.bearer, known.renamed) if known else ():
            if found and not found.deleted:
                return found
        raise Refused("MODEL_NOT_FOUND")

    def write(self, name: str) -> SimpleModel:
        """Whom a name means to a writer."""
        found = self.read(name)
        if self.names[name].bearer is not found:
            raise Refused("RENAMED")
        return found

    def create_version(self, name: str) -> int:
        """Give the next number."""
        model = self.write(name)
        number = model.next
        model.next += 1
        model.versions[number] = SimpleVersion()
        self.names[name].owners[number] = model
        return number

    def read_number(self, name: str, number: int) -> tuple[SimpleModel, int]:
        """What (name, number) means."""
        known = self.names.get(name)
        owner = known.owners.get(number) if known else None
        if owner is None or owner.deleted:
            self.read(name)
            raise Refused("VERSION_NOT_FOUND")
        if owner.versions[number].deleted:
            raise Refused("VERSION_NOT_FOUND")
        return owner, number

    def rename(self, name: str, new: str) -> None:
        """Give a model another name."""
        model = self.write(name)
        if name == new:
            return
        target = self.names.setdefault(new, SimpleName())
        self._refuse_take(model, target)
        self._leave(model)
        self.names[name].renamed = model
        self._take(model, new)

    def delete_model(self, name: str, *, force: bool) -> None:
        """Delete softly."""
        model = self.write(name)
        if not force and any(
            v.aliases or ACTIVE & v.stages.keys() for v in model.versions.values()
        ):
            raise Refused("MODEL_IN_USE")
        self._leave(model)
        model.deleted = True

    def undelete_model(self, model: SimpleModel) -> None:
        """Bring it back under its name."""
        if not model.deleted:
            raise Refused("NOT_DELETED")
        self._refuse_take(model, self.names[model.name])
        model.deleted = False
        self._take(model, model.name)

    def _refuse_take(self, model: SimpleModel, name: SimpleName) -> None:
        if name.bearer:
            raise Refused("MODEL_EXISTS")
        if any(name.owners.get(n, model) is not model for n in model.versions):
            raise Refused("NAME_HAS_HISTORY")

    def _leave(self, model: SimpleModel) -> None:
        known = self.names[model.name]
        known.bearer = None
        known.next = max(known.next, model.next)

    def _take(self, model: SimpleModel, name: str) -> None:
        known = self.names[name]
        known.bearer = model
        model.name = name
        model.next = max(model.next, known.next)
        for number in model.versions:
            known.owners[number] = model

    def transition(
        self, name: str, number: int, stage: str, *, keep: bool | None, leave: bool
    ) -> None:
        """Move a version into a stage; `keep` None is the stage's own rule."""
        model, version = self._living(name, number)
        before = {s: model.holders(s) for s in STAGES}
        if stage == "None":
            version.stages.clear()
        else:
            displaces = stage in DISPLACES_TO if keep is None else not keep
            for other in sorted(model.holders(stage) - {number}) if displaces else ():
                self._displace(model, other, stage)
            if leave:
                for held in set(version.stages) - {stage}:
                    del version.stages[held]
            version.stages.setdefault(stage, "")
        self._note(model, before)

    def remove(self, name: str, number: int, stage: str) -> None:
        """Take a version out of a stage."""
        model, version = self._living(name, number)
        before = {s: model.holders(s) for s in STAGES}
        version.stages.pop(stage, None)
        self._note(model, before)

    def rollback(self, name: str, stage: str) -> None:
        """Restore what the stage held before its last forward change."""
        model = self.write(name)
        moves = model.moves[stage]
        present = model.holders(stage)
        target = moves[-1].undo if moves else None
        while target is not None:
            held = moves[target].holders
            living = {n for n in held if not model.versions[n].deleted}
            if held and not living:
                raise Refused("ROLLBACK_TARGET_DELETED")
            if living and living != present:
                break
            target = moves[target].undo
        if target is None:
            raise Refused("NOTHING_TO_ROLL_BACK")
        before = {s: model.holders(s) for s in STAGES}
        undo = moves[target].undo
        for number in sorted(present - living):
            self._displace(model, number, stage)
        for number in living - present:
            version = model.versions[number]
            version.stages[stage] = ""
            archive = DISPLACES_TO.get(stage, "")
            if version.stages.get(archive) == stage:
                del version.stages[archive]
        self._note(model, before, undo={stage: undo})

    def delete_version(self, name: str, number: int, *, force: bool) -> None:
        """Delete a version, ending its stages and aliases."""
        model, version = self._living(name, number)
        if not force and (version.aliases or ACTIVE & version.stages.keys()):
            raise Refused("VERSION_IN_USE")
        before = {s: model.holders(s) for s in STAGES}
        version.deleted = True
        version.stages.clear()
        version.aliases.clear()
        self._note(model, before)

    def undelete_version(self, name: str, number: int) -> None:
        """Bring a version back, in no stage."""
        model = self.write(name)
        self._own(name, model, number)
        if not model.versions[number].deleted:
            raise Refused("NOT_DELETED")
        model.versions[number].deleted = False

    def set_alias(self, name: str, alias: str, number: int, *, reassign: bool) -> None:
        """Point an alias at a version."""
        model, version = self._living(name, number)
        holder = next((v for v in model.versions.values() if alias in v.aliases), None)
        if holder is not None and holder is not version:
            if not reassign:
                raise Refused("ALIAS_EXISTS")
            holder.aliases.discard(alias)
        version.aliases.add(alias)

    def delete_alias(self, name: str, alias: str) -> None:
        """Remove an alias."""
        model = self.write(name)
        for version in model.versions.values():
            if alias in version.aliases:
                version.aliases.discard(alias)
                return
        raise Refused("ALIAS_NOT_FOUND")

    def _living(self, name: str, number: int) -> tuple[SimpleModel, SimpleVersion]:
        model = self.write(name)
        self._own(name, model, number)
        if model.versions[number].deleted:
            raise Refused("VERSION_NOT_FOUND")
        return model, model.versions[number]

    def _own(self, name: str, model: SimpleModel, number: int) -> None:
        """Refuse a number that is not the model's: under an old name it may be another's."""
        if number not in model.versions:
            other = self.names[name].owners.get(number)
            gone = other is None or other.deleted
            raise Refused("VERSION_NOT_FOUND" if gone else "RENAMED")

    def _displace(self, model: SimpleModel, number: int, stage: str) -> None:
        version = model.versions[number]
        version.stages.pop(stage, None)
        archive = DISPLACES_TO.get(stage)
        if archive and not ACTIVE & version.stages.keys():
            version.stages.setdefault(archive, stage)

    def _note(
        self,
        model: SimpleModel,
        before: dict[str, frozenset[int]],
        undo: dict[str, int | None] | None = None,
    ) -> None:
        for stage in STAGES:
            if model.holders(stage) != before[stage]:
                moves = model.moves[stage]
                back = len(moves) - 1 if moves else None
                if undo and stage in undo:
                    back = undo[stage]
                moves.append(Move(model.holders(stage), back))
