"""Answers of the calls that serving systems make all the time, kept until something changes them.

An answer is kept only if the tail has seen no change of what it shows since it was read, and goes
with the first change of its model, of a name on the way to it, or of its namespace's stages. It is
given only while the tail is fresh and has read whatever this process committed: whoever wrote here
reads what was written, and whoever wrote elsewhere says so by `min_revision`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from cachetools import LRUCache

from stagewire import names, pb
from stagewire.service.operations import Answer, Read, Request

if TYPE_CHECKING:
    from stagewire.rights import Rights
    from stagewire.service.tail import Entry, Tail

MOST_BYTES = 64 * 1024 * 1024
# What a kept answer costs beside its own bytes: its key, its places in the indexes.
_OVERHEAD_BYTES = 1000
# A read that took so long that more than this was committed meanwhile is not worth the look.
_MOST_MISSED = 100

#: A method's name and a request without its `min_revision`.
Key = tuple[str, bytes]
#: What an answer depends on: a model by its id, a name in a namespace, a namespace's definitions.
Root = tuple[str, ...]


class Memory(Read[Request, Answer]):
    """A read whose answers may be kept: it shows one model, and nothing that is not in the log."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """An answer without its revision, and that revision."""

    answer: type[Any]
    data: bytes
    revision: int
    roots: tuple[Root, ...]
    namespace: str
    #: Its name, and the one by which it was asked for.
    models: frozenset[str]


class _Shelf(LRUCache[Key, _Kept]):
    """Kept answers, the longest unused of which go first, and what each depends on."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__(most_bytes, getsizeof=lambda kept: len(kept.data) + _OVERHEAD_BYTES)
        self.by_root: defaultdict[Root, set[Key]] = defaultdict(set)

    def __setitem__(self, key: Key, kept: _Kept) -> None:
        self.pop(key, None)
        super().__setitem__(key, kept)
        for root in kept.roots:
            self.by_root[root].add(key)

    def __delitem__(self, key: Key) -> None:
        for root in self[key].roots:
            keys = self.by_root[root]
            keys.discard(key)
            if not keys:
                del self.by_root[root]
        super().__delitem__(key)


class HotReads:
    """The kept answers of one process. For the event loop's thread only."""

    def __init__(self, tail: Tail, *, most_bytes: int = MOST_BYTES) -> None:
        """Keep at most so many bytes, and drop what `tail` sees change."""
        self._tail = tail
        self._most_bytes = most_bytes
        self._shelf = _Shelf(most_bytes)
        tail.listeners.append(self._drop)
        tail.on_break.append(self._shelf.clear)

    def recall(self, method: str, request: Any, rights: Rights) -> bytes | None:
        """Give the serialised answer to a request, or None to have the database asked.

        Whoever may not see what it shows is told so by the database.
        """
        tail = self._tail
        least = request.min_revision
        if not 0 <= least <= tail.last or not tail.has_read_own_commits or not tail.is_fresh:
            return None
        kept = self._shelf.get(_key(method, request))
        if kept is None:
            return None
        if not rights.everything and not all(
            rights.sees(kept.namespace, name) for name in kept.models
        ):
            return None
        # Nothing it shows has changed up to where the tail is, so it is that revision's answer.
        revision = max(kept.revision, tail.last)
        mark: bytes = kept.answer(revision=revision).SerializeToString()
        # Serialised messages concatenate.
        return kept.data + mark

    def keep(self, method: str, request: Any, answer: Any) -> None:
        """Keep an answer of the database's, unless it may be outdated already."""
        if getattr(request, "include_metrics", False) or not self._most_bytes:
            return
        space, model_id, name = _shown(answer)
        roots = _roots(request, space, model_id, name)
        if not self._unchanged(roots, answer.revision):
            return
        bare = type(answer)()
        bare.CopyFrom(answer)
        bare.ClearField("revision")
        models = frozenset((name, _asked(request)))
        kept = _Kept(type(answer), bare.SerializeToString(), answer.revision, roots, space, models)
        if len(kept.data) + _OVERHEAD_BYTES <= self._most_bytes:
            self._shelf[_key(method, request)] = kept

    def _unchanged(self, roots: tuple[Root, ...], revision: int) -> bool:
        missed = self._tail.since(revision, most=_MOST_MISSED)
        return missed is not None and not any(
            root in roots for entry in missed for root in _touched(entry)
        )

    def _drop(self, entry: Entry) -> None:
        if not self._shelf:
            return
        for root in _touched(entry):
            for key in list(self._shelf.by_root.get(root, ())):
                # A read may have been ahead of the tail, and shows this change already.
                if self._shelf[key].revision < entry.revision:
                    del self._shelf[key]


def _key(method: str, request: Any) -> Key:
    mark = request.min_revision
    if not mark:
        return method, request.SerializeToString()
    request.ClearField("min_revision")
    key = method, cast("bytes", request.SerializeToString())
    request.min_revision = mark
    return key


def _shown(answer: Any) -> tuple[str, str, str]:
    """Say which model an answer shows: its namespace, its id, its name."""
    if isinstance(answer, pb.GetModelResponse):
        model = answer.model
        return model.namespace, model.id, model.name
    version = answer.version
    return version.namespace, version.model_id, version.model


def _roots(request: Any, space: str, model_id: str, name: str) -> tuple[Root, ...]:
    """Say what an answer depends on: its model, both names by which it was reached, its stages."""
    return (
        ("model", model_id),
        ("name", space, _asked(request)),
        ("name", space, name),
        ("namespace", space),
    )


def _asked(request: Any) -> str:
    """Give the name by which a model was asked for."""
    return names.lookup_model(request.model or names.parse_models_uri(request.uri)[0])


def _touched(entry: Entry) -> set[Root]:
    found: set[Root] = set()
    for change in entry.slices:
        for keys in (change.before, change.after):
            if keys is None:
                continue
            found.update(("name", keys.namespace, name) for name in keys.models)
            if not change.model_id:
                found.add(("namespace", keys.namespace))
        if change.model_id:
            found.add(("model", change.model_id))
    return found


def keeps(registry: object, method: str) -> bool:
    """Tell whether a method's answers may be kept."""
    return isinstance(getattr(type(registry), method, None), Memory)
