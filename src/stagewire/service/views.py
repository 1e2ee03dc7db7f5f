"""Which changes of the log a caller may see: by what they are about, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from stagewire import pb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stagewire.rights import Rights

#: About what is shown to those who administer a namespace, and to nobody else.
_ADMINISTRATION = frozenset(
    {
        pb.CHANGE_KIND_WEBHOOK_CREATED,
        pb.CHANGE_KIND_WEBHOOK_UPDATED,
        pb.CHANGE_KIND_WEBHOOK_DELETED,
        pb.CHANGE_KIND_TOKEN_CREATED,
        pb.CHANGE_KIND_TOKEN_REVOKED,
        pb.CHANGE_KIND_GRANT_CREATED,
        pb.CHANGE_KIND_GRANT_DELETED,
    }
)


class Found(Protocol):
    """What one side of a change is found by."""

    @property
    def namespace(self) -> str:
        """The namespace, '' for what belongs to none."""

    @property
    def models(self) -> Sequence[str]:
        """The model's name, or nothing."""


def shows(rights: Rights, kind: int, keys: Found | None) -> bool:
    """Tell whether one side of a change may be seen."""
    if keys is None:
        return False
    if rights.everything:
        return True
    if kind in _ADMINISTRATION:
        return bool(keys.namespace) and rights.administers(keys.namespace)
    if keys.models:
        return any(rights.sees(keys.namespace, model) for model in keys.models)
    return rights.sees_namespace(keys.namespace)


def show(rights: Rights, payload: pb.EventPayload) -> pb.EventPayload | None:
    """Give what may be seen of a revision, or None. Who did it is withheld where a part is."""
    if rights.everything:
        return payload
    seen = []
    for record in payload.records:
        found = record.after if record.HasField("after") else record.before
        if shows(rights, record.change.kind, found):
            seen.append(record)
    if not seen:
        return None
    if len(seen) == len(payload.records):
        return payload
    return pb.EventPayload(method=payload.method, records=seen)
