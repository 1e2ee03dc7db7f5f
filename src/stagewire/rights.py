"""What a caller may do and see, decided from its grants alone.

A grant is a role on a part of the registry; what a caller may do is the sum of its grants, and
what is in none of them is refused. Nothing here looks at the database.
"""

from __future__ import annotations

import enum
import hashlib
import shlex
from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from stagewire import names
from stagewire.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Every namespace, or every model.
ALL = "*"
_EPOCH_BYTES = 8


class Permission(enum.Flag):
    """One kind of thing that may be done to a model."""

    SEE = enum.auto()
    REGISTER = enum.auto()
    EDIT = enum.auto()
    MOVE = enum.auto()
    REPORT = enum.auto()
    ADMINISTER = enum.auto()


SEE, REGISTER, EDIT = Permission.SEE, Permission.REGISTER, Permission.EDIT
MOVE, REPORT, ADMINISTER = Permission.MOVE, Permission.REPORT, Permission.ADMINISTER
#: What is done at a stage or an alias, and nowhere where none is left.
_PLACED = MOVE | REPORT

#: What each role may do, the least first: a refusal names the first that would do.
ROLES: dict[str, Permission] = {
    "viewer": SEE,
    "registrar": SEE | REGISTER,
    "approver": SEE | MOVE,
    "deployer": SEE | REPORT,
    "editor": SEE | REGISTER | EDIT | MOVE,
    "admin": SEE | REGISTER | EDIT | MOVE | REPORT | ADMINISTER,
}
#: Roles that may be granted for one stage, or one alias.
NARROWED_BY_STAGE = frozenset({"approver", "deployer", "editor"})
NARROWED_BY_ALIAS = frozenset({"approver", "editor"})

_DEEDS = {
    SEE: "see",
    REGISTER: "register versions of",
    EDIT: "change",
    MOVE: "move versions of",
    REPORT: "report deployments of",
    ADMINISTER: "administer",
}


class Place(NamedTuple):
    """Where a version may be moved to: a stage by its key, or an alias."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Scope:
    """A role on a part of the registry, as it is granted; a stage by its key."""

    role: str
    namespace: str = names.DEFAULT_NAMESPACE
    model: str = ALL
    stage: str = ""
    alias: str = ""


@dataclass(frozen=True, slots=True)
class Allowance:
    """Permissions on the models of a pattern; `places` None means every stage and alias."""

    permissions: Permission
    namespace: str
    model: str
    places: frozenset[Place] | None = None

    @classmethod
    def of(cls, scope: Scope) -> Allowance:
        """Say what a role on a part of the registry allows."""
        places = None
        if scope.stage:
            places = frozenset({Place("stage", names.stage_key(scope.stage))})
        elif scope.alias:
            places = frozenset({Place("alias", scope.alias)})
        return cls(ROLES[scope.role], scope.namespace, scope.model, places)

    def within(self, other: Allowance) -> Allowance | None:
        """Give what two allowances have in common, or None."""
        # Most have nothing in common, and there may be a hundred thousand pairs to look at.
        model = _narrower(self.model, other.model)
        if model is None:
            return None
        namespace = _narrower(self.namespace, other.namespace)
        if namespace is None:
            return None
        permissions = self.permissions & other.permissions
        if self.places is None or other.places is None:
            places = other.places if self.places is None else self.places
        else:
            places = self.places & other.places
        if not places and places is not None:
            permissions &= ~_PLACED
        if not permissions & _PLACED:
            places = None
        return Allowance(permissions, namespace, model, places) if permissions else None


def _narrower(one: str, other: str) -> str | None:
    """Give the pattern of what two patterns have in common: one of the two, or nothing."""
    if one == other or (other.endswith(ALL) and one.startswith(other[:-1])):
        return one
    return other if one.endswith(ALL) and other.startswith(one[:-1]) else None


class View(NamedTuple):
    """Which models of a namespace may be seen: by name, or by how their names begin."""

    names: tuple[str, ...]
    prefixes: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether that is every one."""
        return "" in self.prefixes

    def patterns(self) -> set[str]:
        """Give both as they are granted."""
        return {*self.names, *(prefix + ALL for prefix in self.prefixes)}


def _least(patterns: Iterable[str]) -> View:
    """Leave out the patterns that others cover."""
    patterns = set(patterns)
    prefixes: list[str] = []
    for prefix in sorted(pattern[:-1] for pattern in patterns if pattern.endswith(ALL)):
        # In this order whatever begins as another does follows it, with only its like between.
        if not prefixes or not prefix.startswith(prefixes[-1]):
            prefixes.append(prefix)
    exact = []
    for name in sorted(pattern for pattern in patterns if not pattern.endswith(ALL)):
        place = bisect_right(prefixes, name)
        if not place or not name.startswith(prefixes[place - 1]):
            exact.append(name)
    return View(tuple(exact), tuple(prefixes))


class _Space:
    """What is allowed in one namespace, found by a model's name and not by going through it."""

    __slots__ = ("bits", "exact", "lengths", "patterns", "prefixes")

    def __init__(self, allowances: Iterable[Allowance]) -> None:
        #: By a name, or how it begins: permissions by the places that they are for.
        self.exact: dict[str, dict[frozenset[Place] | None, int]] = {}
        self.prefixes: dict[str, dict[frozenset[Place] | None, int]] = {}
        self.patterns = {a.model for a in allowances}
        self.bits = 0
        for allowance in allowances:
            bits = allowance.permissions.value
            whole = not allowance.model.endswith(ALL)
            table = self.exact if whole else self.prefixes
            held = table.setdefault(allowance.model if whole else allowance.model[:-1], {})
            held[allowance.places] = held.get(allowance.places, 0) | bits
            self.bits |= bits
        self.lengths = sorted({len(prefix) for prefix in self.prefixes})

    def covers(self, model: str) -> bool:
        """Tell whether anything is allowed on a model."""
        if model in self.exact:
            return True
        for length in self.lengths:  # noqa: SIM110  # a generator costs as much as all of it
            if model[:length] in self.prefixes:
                return True
        return False

    def held(self, model: str) -> Iterator[tuple[frozenset[Place] | None, int]]:
        """Give all that is allowed on a model, or with ALL on every one."""
        if model == ALL:
            yield from self.prefixes.get("", {}).items()
            return
        yield from self.exact.get(model, {}).items()
        for length in self.lengths:
            yield from self.prefixes.get(model[:length], {}).items()


class Rights:
    """All that one caller may do. Two with the same allowances are the same."""

    def __init__(self, allowances: Iterable[Allowance], *, off: bool = False) -> None:
        """Take the sum of these; `off` means that access is not controlled at all."""
        self.allowances = tuple(allowances)
        #: Whether there is nothing at all that may not be done.
        self.everything = off or any(
            a.namespace == a.model == ALL and a.permissions & ADMINISTER for a in self.allowances
        )
        by_space: dict[str, list[Allowance]] = {}
        for allowance in self.allowances:
            by_space.setdefault(allowance.namespace, []).append(allowance)
        self._spaces = {space: _Space(found) for space, found in by_space.items()}
        self._everywhere = self._spaces.get(ALL)
        self._views = {space: self._view(space) for space in (*self._spaces, ALL)}
        #: Namespaces and patterns of the models that may be seen, without those within others.
        self.sight = self._sight()
        self.epoch = self._epoch()

    def _sight(self) -> tuple[tuple[str, str], ...]:
        everywhere = self._views[ALL].patterns()
        found = {
            (space, pattern) for space, view in self._views.items() for pattern in view.patterns()
        }
        return tuple(sorted(one for one in found if one[0] == ALL or one[1] not in everywhere))

    def _view(self, space: str) -> View:
        if self.everything:
            return View((), ("",))
        return _least(pattern for found in self._in(space) for pattern in found.patterns)

    def _in(self, space: str) -> list[_Space]:
        """Give what is allowed in a namespace by its name, and in every one."""
        found = self._spaces.get(space)
        if space == ALL or self._everywhere is None:
            return [] if found is None else [found]
        return [self._everywhere] if found is None else [found, self._everywhere]

    def _epoch(self) -> bytes:
        """Hash what may be seen, and nothing else: whoever sees the same has the same."""
        if self.everything:
            return hashlib.sha256(b"all").digest()[:_EPOCH_BYTES]
        everywhere = self._views[ALL]
        differing = sorted((s, view) for s, view in self._views.items() if view != everywhere)
        # Administration shows besides what is no model's: webhooks and grants.
        run = sorted(s for s, found in self._spaces.items() if found.bits & ADMINISTER.value)
        shown = repr((everywhere, differing, run))
        return hashlib.sha256(shown.encode()).digest()[:_EPOCH_BYTES]

    def sees_namespace(self, space: str) -> bool:
        """Tell whether a namespace is there for this caller."""
        return self.everything or ALL in self._spaces or space in self._spaces

    def sees(self, space: str, model: str) -> bool:
        """Tell whether a model is there for this caller."""
        return self.everything or any(found.covers(model) for found in self._in(space))

    def view(self, space: str) -> View:
        """Give the models of a namespace that this caller sees."""
        return self._views[space if space in self._spaces else ALL]

    def may(
        self,
        permission: Permission,
        space: str,
        model: str = ALL,
        *,
        stage: str = "",
        alias: str = "",
    ) -> bool:
        """Tell whether something may be done to a model; `model` ALL means the namespace itself.

        A stage is named by its key. Where neither stage nor alias is named, one is enough.
        """
        if self.everything:
            return True
        bits = permission.value
        place = Place("stage", stage) if stage else Place("alias", alias) if alias else None
        for found in self._in(space):
            for places, held in found.held(model):
                if held & bits and (place is None or places is None or place in places):
                    return True
        return False

    def may_somewhere(self, permission: Permission, space: str) -> bool:
        """Tell whether something may be done to any model of a namespace."""
        return self.everything or any(f.bits & permission.value for f in self._in(space))

    def administers(self, space: str) -> bool:
        """Tell whether a namespace, or with ALL the whole registry, is this caller's to run."""
        return self.may(ADMINISTER, space)

    def demand(
        self,
        permission: Permission,
        space: str,
        model: str = ALL,
        *,
        stage: str = "",
        alias: str = "",
        caller: str = "",
    ) -> None:
        """Refuse PERMISSION_DENIED, naming a grant that would help, what may not be done."""
        if not self.may(permission, space, model, stage=stage, alias=alias):
            raise denied(permission, space, model, stage=stage, alias=alias, caller=caller)


def denied(
    permission: Permission,
    space: str,
    model: str = ALL,
    *,
    stage: str = "",
    alias: str = "",
    caller: str = "",
) -> RegistryError:
    """Build the refusal that names the grant which would allow something."""
    role = next(role for role, allowed in ROLES.items() if allowed & permission)
    deed = _DEEDS[permission]
    if model != ALL:
        what = f"model {model!r}"
    else:
        what = "the whole registry" if space == ALL else f"namespace {space!r}"
    where = f" into or out of stage {stage!r}" if stage else ""
    where = f" to or from alias {alias!r}" if alias else where
    options = ["--role", role, "--namespace", space]
    options += ["--model", model] if model != ALL else []
    options += ["--stage", stage] if stage else []
    options += ["--alias", alias] if alias else []
    # What begins as an option does is none after "--".
    dashed = caller.startswith("-")
    command = [*options, "--", caller] if dashed else [caller or "SUBJECT", *options]
    return RegistryError(
        "PERMISSION_DENIED",
        f"{caller or 'the caller'} may not {deed} {what}{where}; an admin can allow it: "
        f"stagewire grant create {shlex.join(command)}",
        metadata={
            "subject": caller,
            "role": role,
            "namespace": space,
            "model": model,
            "stage": stage,
            "alias": alias,
        },
    )


#: Of callers while access is not controlled, and of the server itself.
EVERYTHING = Rights((), off=True)
NOTHING = Rights(())


@lru_cache(maxsize=4096)
def of(scopes: frozenset[Scope], narrowed_to: frozenset[Scope] | None = None) -> Rights:
    """Sum up grants, for a token only as far as they lie within its own scopes."""
    allowances = [Allowance.of(scope) for scope in sorted(scopes, key=repr)]
    if narrowed_to:
        bounds = [Allowance.of(scope) for scope in narrowed_to]
        found = {both for a in allowances for b in bounds if (both := a.within(b)) is not None}
        allowances = sorted(found, key=repr)
    return Rights(allowances)


def scopes_of(allowances: Iterable[Allowance]) -> list[Scope]:
    """Describe allowances by roles again, the nearest that promises nothing more."""
    found = []
    for allowance in allowances:
        role = next(
            role
            for role, allowed in reversed(ROLES.items())
            if allowed & allowance.permissions == allowed
        )
        scope = Scope(role, allowance.namespace, allowance.model)
        if allowance.places is None:
            found.append(scope)
        found += [replace(scope, **{p.kind: p.name}) for p in sorted(allowance.places or ())]
    return found
