"""Who is calling, what they may do, and how long they wait: a parameter of every operation."""

from __future__ import annotations

from dataclasses import dataclass

from stagewire import names, pb
from stagewire.rights import ALL, EVERYTHING, Rights, Scope


@dataclass(frozen=True, slots=True)
class Caller:
    """The one on whose behalf an operation runs.

    `deadline` is on `time.monotonic`'s clock; None waits for ever. `expires` is when the
    credentials end, in seconds since 1970; None where they don't.
    """

    name: str = names.ANONYMOUS
    deadline: float | None = None
    rights: Rights = EVERYTHING
    method: pb.AuthenticationMethod.ValueType = pb.AUTHENTICATION_METHOD_UNSPECIFIED
    groups: tuple[str, ...] = ()
    token_id: str = ""
    expires: float | None = None
    #: Roles that an identity provider's claims gave besides.
    given: frozenset[Scope] = frozenset()

    @property
    def subjects(self) -> tuple[str, ...]:
        """Whose grants are this caller's."""
        return (self.name, *(f"group:{group}" for group in self.groups), ALL)


#: Of whoever calls while access is not controlled.
ANONYMOUS = Caller()
