"""The board: what an agent should run, what it runs, and how far it has read the log.

Folding an event is pure: it changes what is desired and says which models it touched. A
snapshot replaces everything desired, also backwards; a transaction counts only when it is
newer than the board. What runs changes by `deployed` and `withdrawn` alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stagewire import pb

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stagewire.client import Snapshot

_KNOWN_DELIVERIES = frozenset(pb.ChangeDelivery.values())


@dataclass(frozen=True, slots=True)
class Placement:
    """One version as it is desired or runs.

    The number alone does not tell: after lost history it may mean another version, so the
    model's identity and the content's digest belong to it.
    """

    model_id: str
    version: int
    content_digest: str = ""

    @classmethod
    def of(cls, version: pb.ModelVersion) -> Placement:
        """Return a version's placement."""
        return cls(version.model_id, version.version, version.content_digest)

    def is_of(self, other: Placement | None) -> bool:
        """Whether both mean the same version, as far as their digests are known."""
        return (
            other is not None
            and (self.model_id, self.version) == (other.model_id, other.version)
            and (
                not self.content_digest
                or not other.content_digest
                or self.content_digest == other.content_digest
            )
        )


@dataclass(slots=True)
class Slot:
    """One model at the agent's target."""

    namespace: str
    model: str
    model_id: str
    desired: Placement | None = None
    #: The desired version in full; None when the log left out some of it.
    version: pb.ModelVersion | None = None
    running: Placement | None = None
    #: An order was begun and nobody knows how it ended: `running` may be wrong.
    is_uncertain: bool = False
    #: The agent may not see the model any more: what runs is held, whatever is desired by now.
    is_unseen: bool = False
    state: pb.DeploymentState.ValueType = pb.DEPLOYMENT_STATE_PENDING
    error: str = ""
    failures: int = field(default=0, compare=False)
    due_seconds: float = field(default=0.0, compare=False)

    @property
    def is_settled(self) -> bool:
        """Whether what runs is what is desired, for certain."""
        if self.is_uncertain:
            return False
        if self.desired is None:
            return self.running is None
        return self.desired.is_of(self.running)

    @property
    def is_over(self) -> bool:
        """Whether nothing is desired and nothing runs."""
        return self.desired is None and self.running is None

    @property
    def idle_state(self) -> pb.DeploymentState.ValueType:
        """What it is doing while nobody works on it."""
        if self.is_over:
            return pb.DEPLOYMENT_STATE_STOPPED
        # Until somebody stops it, it goes on serving what nobody asks for.
        if self.desired is None or self.is_settled:
            return pb.DEPLOYMENT_STATE_SERVING
        return pb.DEPLOYMENT_STATE_PENDING

    def settle(self) -> None:
        """Forget failures: what is desired or what runs has changed."""
        self.failures = 0
        self.due_seconds = 0.0
        self.error = ""
        self.state = self.idle_state


class Board:
    """Everything an agent knows; one thread at a time."""

    def __init__(self, stage: str) -> None:
        """Begin empty, for one stage in any letter case."""
        self._stage = stage.casefold()
        self.slots: dict[str, Slot] = {}
        self.log_id = ""
        self.cursor = b""
        self.revision = 0

    def read_snapshot(self, snapshot: Snapshot, *, log_id: str) -> None:
        """Desire what the snapshot names, and nothing else.

        What it can't tell of is held: that a grant was lost is no order to stop, and a mistake
        with grants must not take down what serves. As soon as the agent may see the model again,
        a snapshot says what became of it.
        """
        primaries = {
            item.version.model_id: item
            for item in snapshot.items
            if item.WhichOneof("resource") == "version"
            and item.version.version in self._mine(item.primaries)
        }
        # First what is gone: a model of the same name takes over what it left running.
        for slot in list(self.slots.values()):
            if slot.model_id in primaries:
                continue
            if snapshot.tells_of(slot.namespace, slot.model):
                self._desire_none(slot)
            else:
                self._hold(slot)
        for item in primaries.values():
            self._rename(item.version.model_id, item.version.model)
            self._desire(item.version, complete=not item.omitted_texts)
        self.log_id = log_id
        self.revision = snapshot.revision
        self.cursor = snapshot.cursor

    def read_transaction(self, transaction: pb.Transaction, *, log_id: str) -> bool:
        """Fold a transaction; False when the board has been there already."""
        if log_id == self.log_id and transaction.revision <= self.revision:
            return False
        primaries: dict[str, tuple[int, pb.Change]] = {}
        states: dict[tuple[str, int], pb.Change] = {}
        left: list[pb.Change] = []
        for change in transaction.changes:
            resource = change.WhichOneof("resource")
            if change.delivery not in _KNOWN_DELIVERIES and resource is None:
                self._reject(change)
            elif change.delivery == pb.CHANGE_DELIVERY_LEFT:
                left.append(change)
            elif resource == "version_state":
                states[change.model_id, change.version] = change
                self._rename(change.model_id, change.version_state.model)
                for primary in self._mine(change.primaries):
                    primaries[change.model_id] = (primary, change)
            elif resource == "model_state":
                self._read_model(change.model_state)
        # A full change's primary wins: what left the stage says only that it left.
        for change in left:
            slot = self.slots.get(change.model_id)
            if slot is None or change.model_id in primaries or slot.desired is None:
                continue
            if change.version in (0, slot.desired.version):
                self._desire_none(slot)
        for version, told_by in primaries.values():
            self._read_primary(version, told_by, states.get((told_by.model_id, version)))
        self.log_id = log_id
        self.revision = transaction.revision
        self.cursor = transaction.cursor
        return True

    def read_bookmark(self, bookmark: pb.Bookmark, *, log_id: str) -> None:
        """Note that nothing is missing up to the bookmark."""
        self.log_id = log_id
        self.revision = bookmark.revision
        self.cursor = bookmark.cursor

    def deployed(self, slot: Slot, placement: Placement) -> None:
        """Note that a version runs now."""
        slot.running = placement
        slot.is_uncertain = False
        slot.settle()

    def withdrawn(self, slot: Slot) -> None:
        """Note that nothing runs any more."""
        slot.running = None
        slot.is_uncertain = False
        slot.settle()

    def forget(self, slot: Slot) -> None:
        """Drop a model that is not desired and does not run."""
        if slot.is_over and self.slots.get(slot.model_id) is slot:
            del self.slots[slot.model_id]

    def _mine(self, primaries: Iterable[pb.StagePrimary]) -> list[int]:
        return [one.version for one in primaries if one.stage.casefold() == self._stage]

    def _slot(self, version: pb.ModelVersion) -> Slot:
        slot = self.slots.get(version.model_id)
        if slot is None:
            slot = Slot(version.namespace, version.model, version.model_id)
            self.slots[version.model_id] = slot
            self._inherit(slot)
        return slot

    def _rename(self, model_id: str, name: str) -> None:
        slot = self.slots.get(model_id)
        if slot is not None and slot.model != name:
            slot.model = name
            self._inherit(slot)

    def _read_model(self, model: pb.Model) -> None:
        self._rename(model.id, model.name)
        slot = self.slots.get(model.id)
        if slot is not None and model.deleted:
            self._desire_none(slot)

    def _read_primary(self, version: int, told_by: pb.Change, change: pb.Change | None) -> None:
        slot = self.slots.get(told_by.model_id)
        if not version:
            if slot is not None:
                self._desire_none(slot)
        elif change is not None:
            self._desire(change.version_state, complete=not change.omitted_texts)
        elif slot is None or slot.desired is None or slot.desired.version != version:
            # The primary is a version that this transaction does not bring: it is fetched.
            slot = self._slot(told_by.version_state)
            self._place(slot, Placement(slot.model_id, version), None)

    def _desire(self, version: pb.ModelVersion, *, complete: bool) -> None:
        self._place(self._slot(version), Placement.of(version), version if complete else None)

    def _hold(self, slot: Slot) -> None:
        slot.is_unseen = True
        if slot.running is None and not slot.is_uncertain:
            del self.slots[slot.model_id]

    def _desire_none(self, slot: Slot) -> None:
        slot.is_unseen = False
        slot.version = None
        if slot.desired is not None:
            slot.desired = None
            slot.settle()

    def _place(self, slot: Slot, placement: Placement, version: pb.ModelVersion | None) -> None:
        slot.is_unseen = False
        is_news = not placement.is_of(slot.desired)
        slot.desired = placement
        slot.version = version
        if is_news:
            slot.settle()

    def _inherit(self, slot: Slot) -> None:
        """Take over what runs under this name for a model that is gone."""
        for other in list(self.slots.values()):
            if (
                other is not slot
                and other.desired is None
                and (other.namespace, other.model) == (slot.namespace, slot.model)
            ):
                if slot.running is None:
                    slot.running, slot.is_uncertain = other.running, other.is_uncertain
                del self.slots[other.model_id]

    def _reject(self, change: pb.Change) -> None:
        slot = self.slots.get(change.model_id)
        if slot is not None:
            slot.state = pb.DEPLOYMENT_STATE_REJECTED
            slot.error = (
                f"the registry sent a change of a form this agent does not know (kind"
                f" {change.kind}, delivery {change.delivery}); update the agent"
            )
