"""Which changes of the log a caller may see: by what they are about, before and after."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Protocol

from stagewire import pb
from stagewire.service.tail import ENTERING, left

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stagewire.rights import Rights
    from stagewire.service.tail import Entry, Filter

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


def sight(rights: Rights) -> pb.Sight | None:
    """Describe what may be seen; None where that is everything."""
    if rights.everything:
        return None
    models = [pb.SeenModels(namespace=space, model=model) for space, model in rights.sight]
    return pb.Sight(models=models)


def select(rights: Rights, filter_: Filter, entry: Entry) -> tuple[list[bytes], bool, bytes]:
    """Pick what to send of a revision, say whether a model entered whole, and give the header.

    A change is sent in full where what it is after matches and may be seen, else as LEFT where
    that is so of what it was before. A model that comes into sight enters as into a filter. Who
    did it is withheld where rights, and not the filter, withhold any side of a change.
    """
    chosen: list[bytes] = []
    withheld = False
    for slice_ in entry.slices:
        kind, before, after = slice_.kind, slice_.before, slice_.after
        saw, sees = shows(rights, kind, before), shows(rights, kind, after)
        withheld = withheld or (after is not None and not sees) or (before is not None and not saw)
        if filter_.kinds and kind not in filter_.kinds:
            continue
        if sees and filter_.matches(after):
            if kind in ENTERING and not (saw and filter_.matches(before)):
                return [], True, entry.bare
            chosen.append(slice_.full)
        elif saw and filter_.matches(before):
            chosen.append(slice_.left)
    return chosen, False, entry.bare if withheld else entry.header


def show(rights: Rights, payload: pb.EventPayload) -> pb.EventPayload | None:
    """Give what may be seen of a revision, or None. Who did it is withheld where a part is."""
    if rights.everything:
        return payload
    seen = [shown for record in payload.records if (shown := _shown(rights, record)) is not None]
    if not seen:
        return None
    if len(seen) == len(payload.records) and all(map(operator.is_, seen, payload.records)):
        return payload
    return pb.EventPayload(method=payload.method, records=seen)


def _shown(rights: Rights, record: pb.ChangeRecord) -> pb.ChangeRecord | None:
    """Give what may be seen of a record: itself, one of its sides, or None."""
    change = record.change
    before = record.before if record.HasField("before") else None
    after = record.after if record.HasField("after") else None
    saw, sees = shows(rights, change.kind, before), shows(rights, change.kind, after)
    if (saw or before is None) and (sees or after is None):
        return record
    if sees:
        # It came out of what is hidden, by a name that is not to be told.
        shown = pb.ChangeRecord(after=after, change=change)
        shown.change.ClearField("previous_model")
        return shown
    if saw and before is not None:
        return pb.ChangeRecord(before=before, change=left(change, before))
    return None
