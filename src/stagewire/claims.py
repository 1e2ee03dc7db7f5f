"""What a provider's token says of its bearer: a name, groups, and roles by the server's rules.

No claim is trusted to have a shape: what is no name is refused, never bent into one. Nothing
here knows how the token was verified.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from stagewire import names, rights
from stagewire.errors import RegistryError
from stagewire.rights import Scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: What begins the subject of whoever a provider vouches for.
PREFIX = "oidc:"
#: More groups are refused, not cut: a caller would have other rights from one token to the next.
MOST_GROUPS = 200

# A grant's subject has at most 256 characters, of which a group's takes "group:".
_NAME_LENGTH = 256 - len(PREFIX)
_GROUP_LENGTH = 256 - len("group:")
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_NO_POINTER = re.compile(r"~(?![01])")

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Claims:
    """Who a token is for; `expires`, in seconds since 1970, is when it is no longer taken."""

    subject: str
    groups: tuple[str, ...]
    roles: tuple[Scope, ...]
    expires: float


class Condition(NamedTuple):
    """A claim that must have a value, or have it in its list."""

    claim: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read CLAIM=VALUE, which the first `=` divides. Raises ValueError."""
        claim, _, value = text.partition("=")
        if not claim or not value:
            raise ValueError(f"{text!r} can't be read; write CLAIM=VALUE, such as hd=example.com")
        check_claim(claim)
        return cls(claim, value)

    def holds(self, claims: Mapping[str, Any]) -> bool:
        """Tell whether the claim has the value, letter by letter."""
        found = find(claims, self.claim)
        return found == self.value or (isinstance(found, list) and self.value in found)


class Rule(NamedTuple):
    """A role for whomever a condition holds for."""

    condition: Condition
    role: Scope

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read CLAIM=VALUE=ROLE or CLAIM=VALUE=ROLE@NAMESPACE. Raises ValueError.

        The first and the last `=` divide: values such as cn=ml,dc=example may hold others.
        """
        condition, _, granted = text.rpartition("=")
        role, at, namespace = granted.partition("@")
        claim, _, value = condition.partition("=")
        if not claim or not value or not role or (at and not namespace):
            raise ValueError(
                f"{text!r} can't be read; write CLAIM=VALUE=ROLE or CLAIM=VALUE=ROLE@NAMESPACE,"
                " such as groups=ml-admins=admin@*"
            )
        if role not in rights.ROLES:
            raise ValueError(f"{text!r}: there is no role {role!r}; take {', '.join(rights.ROLES)}")
        namespace = names.namespace_or_default(namespace)
        if namespace != rights.ALL and not _NAMESPACE.fullmatch(namespace):
            raise ValueError(
                f"{text!r}: {namespace!r} can't be a namespace; it has lower-case letters, digits,"
                " '.', '_' and '-', or is '*', which means every one"
            )
        return cls(Condition.parse(condition), Scope(role, namespace))


def check_claim(claim: str) -> None:
    """Raise ValueError for what can't name a claim: see `find`."""
    if not claim or not claim.isprintable():
        raise ValueError(f"{claim!r} can't be the name of a claim")
    if claim.startswith("/") and _NO_POINTER.search(claim):
        raise ValueError(f"{claim!r} is no JSON pointer; write '~' as '~0', and '/' as '~1'")


def find(claims: Mapping[str, Any], claim: str) -> Any:
    """Return a claim's value, or None: one at the top by its name, one within by JSON pointer.

    Names such as https://example.com/groups hold slashes and dots; only what begins with a slash,
    as /realm_access/roles does, is a way into nested claims.
    """
    if not claim.startswith("/"):
        return claims.get(claim)
    found: Any = claims
    for part in claim[1:].split("/"):
        if not isinstance(found, dict):
            return None
        found = found.get(part.replace("~1", "/").replace("~0", "~"))
    return found


@dataclass(frozen=True, slots=True)
class Reading:
    """How the server reads claims: where name and groups are, and what roles follow from."""

    username_claim: str = "sub"
    groups_claim: str = "groups"
    required: tuple[Condition, ...] = ()
    rules: tuple[Rule, ...] = ()

    def read(self, claims: Mapping[str, Any], expires: float) -> Claims:
        """Say who a verified token is for. Refuses CREDENTIALS_INVALID."""
        for condition in self.required:
            if not condition.holds(claims):
                raise refused(
                    f"has a claim `{condition.claim}` that is not what this server's"
                    " `oidc_required_claims` asks for; take an account of those it is for"
                )
        roles = [rule.role for rule in self.rules if rule.condition.holds(claims)]
        return Claims(PREFIX + self._name(claims), self._groups(claims), _distinct(roles), expires)

    def _name(self, claims: Mapping[str, Any]) -> str:
        claim = self.username_claim
        name = find(claims, claim)
        if name is None:
            raise refused(f"has no claim `{claim}`, from which this server takes names")
        _check_name(name, claim, _NAME_LENGTH)
        # Whoever may choose an address of their own must not choose somebody else's.
        verified = claims.get("email_verified", True) in (True, "true")
        if claim.lstrip("/") == "email" and not verified:
            raise refused("has an address that the provider has not verified; verify it there")
        return str(name)

    def _groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        claim = self.groups_claim
        found = find(claims, claim)
        if found is None:
            return ()
        groups = [found] if isinstance(found, str) else found
        if not isinstance(groups, list):
            raise refused(f"has a claim `{claim}` that is no list of names")
        if len(groups) > MOST_GROUPS:
            raise refused(
                f"has more than {MOST_GROUPS} groups; let the provider put only those into it that"
                " this registry's grants name"
            )
        for group in groups:
            _check_name(group, claim, _GROUP_LENGTH)
        return _distinct(groups)


def refused(what: str) -> RegistryError:
    """Build the refusal of a token: what is wrong with it, and never any of it."""
    return RegistryError("CREDENTIALS_INVALID", f"the identity provider's token {what}")


def _distinct(items: Iterable[_Item]) -> tuple[_Item, ...]:
    return tuple(dict.fromkeys(items))


def _check_name(name: Any, claim: str, most: int) -> None:
    if not isinstance(name, str):
        raise refused(f"has a claim `{claim}` with what is no text")
    if not name or len(name) > most:
        raise refused(f"has a claim `{claim}` with a name that has not 1 to {most} characters")
    # Nothing that two readers could take for different names, or a terminal for a command.
    if not name.isprintable() or name != name.strip():
        raise refused(
            f"has a claim `{claim}` with a name that has invisible characters, or white space"
            " around it"
        )
