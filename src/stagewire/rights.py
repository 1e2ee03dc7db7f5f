"""What a caller may do and see, decided from its grants alone.

A grant is a role on a part of the registry; what a caller may do is the sum of its grants, and
what is in none of them is refused. Nothing here looks at the database.
"""

from __future__ import annotations

import enum
import hashlib
import shlex
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from stagewire import names
from stagewire.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

#: Every namespace, or every model.
ALL = "*"
_EPOCH_BYTES = 8
_KEPT_VIEWS = 64


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
        permissions = self.permissions & other.permissions
        namespace = _narrower(self.namespace, other.namespace)
        model = _narrower(self.model, other.model)
        if not permissions or namespace is None or model is None:
            return None
        if self.places is None or other.places is None:
            places = other.places if self.places is None else self.places
        else:
            places = self.places & other.places
        return Allowance(permissions, namespace, model, places)

    def covers(self, space: str, model: str) -> bool:
        """Tell whether a model is one of these."""
        return self.namespace in (ALL, space) and _matches(self.model, model)


def _matches(pattern: str, model: str) -> bool:
    return model.startswith(pattern[:-1]) if pattern.endswith(ALL) else model == pattern


def _narrower(one: str, other: str) -> str | None:
    """Give the pattern of what two patterns have in common: one of the two, or nothing."""
    for narrow, wide in ((one, other), (other, one)):
        if narrow == wide or (wide.endswith(ALL) and narrow.startswith(wide[:-1])):
            return narrow
    return None


def _is_within_others(space: str, pattern: str, seen: AbstractSet[tuple[str, str]]) -> bool:
    """Tell whether the models of a pattern are all among those of others.

    Looks the others up: they may be thousands.
    """
    wider = (pattern[:length] + ALL for length in range(len(pattern.removesuffix(ALL)) + 1))
    spaces = {ALL, space}
    return (space != ALL and (ALL, pattern) in seen) or any(
        (other, one) in seen for one in wider if one != pattern for other in spaces
    )


class View(NamedTuple):
    """Which models of a namespace may be seen: by name, or by how their names begin."""

    names: frozenset[str]
    prefixes: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether that is every one."""
        return "" in self.prefixes


class Rights:
    """All that one caller may do. Two with the same allowances are the same."""

    def __init__(self, allowances: Iterable[Allowance], *, off: bool = False) -> None:
        """Take the sum of these; `off` means that access is not controlled at all."""
        self.allowances = tuple(allowances)
        #: Whether there is nothing at all that may not be done.
        self.everything = off or any(
            a.namespace == ALL and a.permissions & ADMINISTER for a in self.allowances
        )
        self._views: dict[str, View] = {}
        #: Namespaces and patterns of the models that may be seen.
        self.sight = self._sight()
        #: Tells who sees the same from who doesn't.
        self.epoch = self._epoch()

    def _sight(self) -> tuple[tuple[str, str], ...]:
        """Give the namespaces and patterns of what may be seen, without those within others."""
        seen = {(a.namespace, a.model) for a in self.allowances}
        return tuple(sorted(one for one in seen if not _is_within_others(*one, seen)))

    def _epoch(self) -> bytes:
        """Hash what may be seen, and nothing else: whoever sees the same has the same."""
        if self.everything:
            return hashlib.sha256(b"all").digest()[:_EPOCH_BYTES]
        # Administration shows besides what is no model's: webhooks and grants.
        run = sorted({a.namespace for a in self.allowances if a.permissions & ADMINISTER})
        return hashlib.sha256(repr((list(self.sight), run)).encode()).digest()[:_EPOCH_BYTES]

    def sees_namespace(self, space: str) -> bool:
        """Tell whether a namespace is there for this caller."""
        return self.everything or any(a.namespace in (ALL, space) for a in self.allowances)

    def sees(self, space: str, model: str) -> bool:
        """Tell whether a model is there for this caller."""
        if self.everything:
            return True
        view = self.view(space)
        return model in view.names or model.startswith(view.prefixes)

    def view(self, space: str) -> View:
        """Give the models of a namespace that this caller sees."""
        found = self._views.get(space)
        if found is None:
            found = self._view(space)
            if len(self._views) < _KEPT_VIEWS:
                self._views[space] = found
        return found

    def _view(self, space: str) -> View:
        if self.everything:
            return View(frozenset(), ("",))
        patterns = {model for namespace, model in self.sight if namespace in (ALL, space)}
        prefixes = {pattern[:-1] for pattern in patterns if pattern.endswith(ALL)}
        # One that begins as another does adds nothing to it.
        prefixes = {p for p in prefixes if not any(p != o and p.startswith(o) for o in prefixes)}
        exact = {p for p in patterns if not p.endswith(ALL)}
        exact = {name for name in exact if not any(name.startswith(p) for p in prefixes)}
        return View(frozenset(exact), tuple(sorted(prefixes)))

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
        place = Place("stage", stage) if stage else Place("alias", alias) if alias else None
        return any(
            a.permissions & permission
            and a.namespace in (ALL, space)
            and (a.model == ALL if model == ALL else _matches(a.model, model))
            and (place is None or a.places is None or place in a.places)
            for a in self.allowances
        )

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
