"""Folds: what the registry must hold after a stretch of the log, and what a watcher must know.

Written anew from the contract, so that the server's filters, snapshots and tables are held
against something that shares no code with them.
"""

from __future__ import annotations

import bisect
import copy
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stagewire import pb

if TYPE_CHECKING:
    from collections.abc import Iterable

ENTERING = {pb.CHANGE_KIND_MODEL_RENAMED, pb.CHANGE_KIND_MODEL_UNDELETED}
#: Identity of a resource: what kind it is and what tells it from others of its kind.
Key = tuple[Any, ...]


def is_administration(change: pb.Change) -> bool:
    """Tell whether it is about a webhook, a token or a grant: no fold and no snapshot holds it."""
    return bool(change.webhook_id or change.access_id)


def sees(filter_: pb.WatchFilter, keys: pb.MatchKeys | None) -> bool:
    """Tell whether a filter matches one side of a change."""
    if keys is None:
        return False
    spaces = list(filter_.namespaces) or ["default"]
    named = list(filter_.models)
    stages = {stage.casefold() for stage in filter_.stages}
    return (
        ("*" in spaces or keys.namespace in spaces)
        and (not named or any(name in named for name in keys.models))
        and (
            not filter_.model_prefix or any(n.startswith(filter_.model_prefix) for n in keys.models)
        )
        and (not stages or any(stage.casefold() in stages for stage in keys.stages))
    )


@dataclass(frozen=True)
class Sight:
    """What a watcher may see: models by (namespace, pattern), and what its admins may."""

    patterns: frozenset[tuple[str, str]]
    administered: frozenset[str] = frozenset()

    @classmethod
    def of(cls, scopes: Iterable[pb.Scope]) -> Sight:
        """Sum up what grants show."""
        found = list(scopes)
        return cls(
            frozenset((scope.namespace, scope.model) for scope in found),
            frozenset(scope.namespace for scope in found if scope.role == pb.ROLE_ADMIN),
        )

    def shows_model(self, space: str, name: str) -> bool:
        """Tell whether a model may be seen."""
        return "*" in self.administered or any(
            space_ in ("*", space)
            and (name == pattern or (pattern[-1] == "*" and name.startswith(pattern[:-1])))
            for space_, pattern in self.patterns
        )

    def shows_space(self, space: str) -> bool:
        """Tell whether a namespace may be seen."""
        return bool({"*", space} & ({space_ for space_, _ in self.patterns} | self.administered))

    def shows(self, change: pb.Change, keys: pb.MatchKeys | None) -> bool:
        """Tell whether one side of a change may be seen."""
        if keys is None:
            return False
        if is_administration(change):
            spaces = {"*", keys.namespace} if keys.namespace else {"*"}
            return bool(spaces & self.administered)
        if keys.models:
            return any(self.shows_model(keys.namespace, name) for name in keys.models)
        return self.shows_space(keys.namespace)


EVERYTHING = Sight(frozenset(), frozenset({"*"}))


def expected(
    filter_: pb.WatchFilter, event: pb.Event, sight: Sight = EVERYTHING
) -> list[pb.Change] | None:
    """Say what of an event a watcher is told; None when a model enters whole."""
    found: list[pb.Change] = []
    for record in event.payload.records:
        change = record.change
        before = record.before if record.HasField("before") else None
        after = record.after if record.HasField("after") else None
        if filter_.kinds and change.kind not in filter_.kinds:
            continue
        was = sees(filter_, before) and sight.shows(change, before)
        if sees(filter_, after) and sight.shows(change, after):
            if change.kind in ENTERING and not was:
                return None
            found.append(change)
        elif before is not None and was:
            found.append(
                pb.Change(
                    kind=change.kind,
                    delivery=pb.CHANGE_DELIVERY_LEFT,
                    namespace=before.namespace,
                    model=before.models[0] if before.models else change.model,
                    model_id=change.model_id,
                    version=change.version,
                    stage=change.stage,
                    webhook_id=change.webhook_id,
                    access_id=change.access_id,
                    left_stages=before.stages,
                )
            )
    return found


def withholds(event: pb.Event, sight: Sight) -> bool:
    """Tell whether something of an event may not be seen."""
    return any(
        record.HasField(side) and not sight.shows(record.change, getattr(record, side))
        for record in event.payload.records
        for side in ("before", "after")
    )


class Telling:
    """What of a whole log a filter's watchers are told, worked out once for all of them."""

    def __init__(
        self, filter_: pb.WatchFilter, log: Iterable[pb.Event], sight: Sight = EVERYTHING
    ) -> None:
        """Judge every event."""
        #: By revision, without those of which nothing is told; None when a model enters whole.
        self.told: dict[int, list[pb.Change] | None] = {}
        for event in log:
            wanted = expected(filter_, event, sight)
            if wanted != []:
                self.told[event.revision] = wanted
        self._revisions = sorted(self.told)

    def first(self, after: int, until: int) -> int | None:
        """Find the first revision after one and up to another of which something is told."""
        place = bisect.bisect_right(self._revisions, after)
        if place < len(self._revisions) and self._revisions[place] <= until:
            return self._revisions[place]
        return None


def dated(state: Any, revision: int, commit_time: Any) -> Any:
    """Fill what a state leaves unset, which means its transaction's."""
    filled = type(state)()
    filled.CopyFrom(state)
    filled.revision = filled.revision or revision
    for name in ("create_time", "update_time", "activity_time"):
        if name in filled.DESCRIPTOR.fields_by_name and not filled.HasField(name):
            getattr(filled, name).CopyFrom(commit_time)
    return filled


def key_of(change: pb.Change) -> Key:
    """Name the resource that a change is about."""
    if change.version:
        return ("version", change.model_id, change.version)
    if change.model_id:
        return ("model", change.model_id)
    if change.stage:
        return ("stage", change.namespace, change.stage.casefold())
    return ("namespace", change.namespace)


@dataclass
class Fold:
    """The registry's whole state after the events applied so far, deleted things included."""

    revision: int = 0
    states: dict[Key, Any] = field(default_factory=dict)
    omitted: dict[Key, list[pb.OmittedText]] = field(default_factory=dict)

    def apply(self, event: pb.Event) -> None:
        """Take in the next event of the log."""
        self.revision = event.revision
        for record in event.payload.records:
            change = record.change
            if is_administration(change):
                continue
            key = key_of(change)
            if change.kind in (pb.CHANGE_KIND_NAMESPACE_DELETED, pb.CHANGE_KIND_STAGE_DELETED):
                del self.states[key]
                continue
            name = change.WhichOneof("resource")
            assert name is not None, change
            state = dated(getattr(change, name), event.revision, event.commit_time)
            self.states[key] = state
            self.omitted[key] = list(change.omitted_texts)
            if change.kind == pb.CHANGE_KIND_MODEL_RENAMED:
                for other in self._versions_of(change.model_id):
                    other.model = state.name

    def _versions_of(self, model_id: str) -> Iterable[pb.ModelVersion]:
        return (s for k, s in self.states.items() if k[0] == "version" and k[1] == model_id)

    def living(self) -> dict[Key, Any]:
        """Give everything that is not deleted, by itself or with its model."""
        return {
            key: state
            for key, state in self.states.items()
            if not getattr(state, "deleted", False)
            and not (key[0] == "version" and self.states["model", key[1]].deleted)
        }

    def view(
        self, filter_: pb.WatchFilter, sight: Sight = EVERYTHING
    ) -> dict[Key, pb.SnapshotItem]:
        """Give the items of a snapshot under a filter."""
        living = self.living()
        orders = {(k[1], s.name): (s.position, k[2]) for k, s in living.items() if k[0] == "stage"}
        primaries: defaultdict[tuple[str, str], int] = defaultdict(int)
        for key, state in living.items():
            for stage in state.stages if key[0] == "version" else ():
                place = (key[1], stage)
                primaries[place] = max(primaries[place], state.version)
        items: dict[Key, pb.SnapshotItem] = {}
        for key, state in living.items():
            keys = _keys(key, state)
            if not sees(filter_, keys) or not sight.shows(pb.Change(), keys):
                continue
            item = pb.SnapshotItem(**{key[0]: state}, omitted_texts=self.omitted[key])
            if key[0] == "version":
                held = sorted(state.stages, key=lambda s: orders[state.namespace, s])
                del item.version.stages[:]
                item.version.stages.extend(held)
                item.primaries.extend(
                    pb.StagePrimary(stage=s, version=primaries[key[1], s]) for s in held
                )
            items[key] = item
        return items


def _keys(key: Key, state: Any) -> pb.MatchKeys:
    match key[0]:
        case "namespace":
            return pb.MatchKeys(namespace=state.name)
        case "stage":
            return pb.MatchKeys(namespace=state.namespace, stages=[state.name])
        case "model":
            return pb.MatchKeys(namespace=state.namespace, models=[state.name])
        case _:
            return pb.MatchKeys(
                namespace=state.namespace, models=[state.model], stages=state.stages
            )


def item_key(item: pb.SnapshotItem) -> Key:
    """Name the resource that a snapshot's item is."""
    name = item.WhichOneof("resource")
    assert name is not None, item
    state = getattr(item, name)
    match name:
        case "namespace":
            return (name, state.name)
        case "stage":
            return (name, state.namespace, state.name.casefold())
        case "model":
            return (name, state.id)
        case _:
            return (name, state.model_id, state.version)


@dataclass
class Knowledge:
    """What a watcher knows: snapshots replace it, transactions change it."""

    states: dict[Key, Any] = field(default_factory=dict)
    primaries: dict[tuple[str, str], int] = field(default_factory=dict)

    def replace(self, items: Iterable[pb.SnapshotItem]) -> None:
        """Take a snapshot in: what it does not name is gone."""
        self.states.clear()
        self.primaries.clear()
        for item in items:
            key = item_key(item)
            # A copy: others were handed the same snapshot, and renames change what is kept here.
            self.states[key] = copy.copy(getattr(item, key[0]))
            self._learn(key, item.primaries)

    def apply(self, transaction: pb.Transaction) -> None:
        """Take a transaction in."""
        for change in transaction.changes:
            if is_administration(change):
                continue
            key = key_of(change)
            if change.delivery == pb.CHANGE_DELIVERY_LEFT:
                self._forget(key)
                continue
            name = change.WhichOneof("resource")
            assert name is not None, change
            state = dated(getattr(change, name), transaction.revision, transaction.commit_time)
            self.states[key] = state
            self._learn(key, change.primaries)
            if change.kind == pb.CHANGE_KIND_MODEL_RENAMED:
                for other, known in self.states.items():
                    if other[:2] == ("version", key[1]):
                        known.model = state.name

    def _learn(self, key: Key, primaries: Iterable[pb.StagePrimary]) -> None:
        for primary in primaries:
            self.primaries[key[1], primary.stage] = primary.version

    def _forget(self, key: Key) -> None:
        self.states.pop(key, None)
        if key[0] == "model":
            for other in [k for k in self.states if k[:2] == ("version", key[1])]:
                del self.states[other]
