"""Carrying out: one order at a time, until what runs is what is desired."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Literal

from stagewire import pb
from stagewire.agent.board import Placement, Slot
from stagewire.agent.orders import Executor, Interrupted, Order, Rejected

if TYPE_CHECKING:
    from stagewire.agent.desk import Desk
    from stagewire.client import Client

_log = logging.getLogger("stagewire.agent")

OnWithdraw = Literal["keep", "stop"]


class Deployer:
    """Has orders carried out, and asks again when that failed."""

    def __init__(
        self,
        desk: Desk,
        client: Client,
        execute: Executor,
        *,
        target: str,
        stage: str,
        on_withdraw: OnWithdraw,
    ) -> None:
        """Name what is deployed where, and by whom."""
        self._desk = desk
        self._client = client
        self._execute = execute
        self._target = target
        self._stage = stage
        self._on_withdraw = on_withdraw

    def run(self) -> None:
        """Carry out what becomes due, until the desk closes."""
        desk = self._desk
        while True:
            with desk.changed:
                slot = self._next_due()
                while slot is None and not desk.stopping.is_set():
                    desk.changed.wait(self._idle_seconds())
                    slot = self._next_due()
                if slot is None or desk.stopping.is_set():
                    return
            self._attempt(slot)

    def run_once(self) -> bool:
        """Attempt each order once; return whether everything is as desired then."""
        slots = list(self._desk.board.slots.values())
        for slot in slots:
            if not self._is_as_desired(slot):
                self._attempt(slot)
        return all(self._is_as_desired(slot) for slot in slots)

    def cancel(self) -> None:
        """End what the executor is doing, where it can be ended."""
        cancel = getattr(self._execute, "cancel", None)
        if cancel is not None:
            cancel()

    def _is_as_desired(self, slot: Slot) -> bool:
        # Whoever keeps serving what nobody desires any more does what its operator asked for.
        kept = slot.desired is None and self._on_withdraw == "keep"
        return slot.is_settled or slot.is_unseen or kept

    def _waiting(self) -> list[Slot]:
        return [
            slot
            for slot in self._desk.board.slots.values()
            if not self._is_as_desired(slot) and slot.state != pb.DEPLOYMENT_STATE_REJECTED
        ]

    def _next_due(self) -> Slot | None:
        now = time.monotonic()
        return next((slot for slot in self._waiting() if slot.due_seconds <= now), None)

    def _idle_seconds(self) -> float | None:
        due = min((slot.due_seconds for slot in self._waiting()), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def _attempt(self, slot: Slot) -> None:
        desk = self._desk
        with desk.changed:
            desired, version = slot.desired, slot.version
            slot.state = pb.DEPLOYMENT_STATE_APPLYING
            # Saved before it begins: whoever restarts after a crash must not trust `running`.
            slot.is_uncertain = True
            desk.save()
            desk.tell()
        try:
            if desired is not None and version is None:
                version = self._fetch(slot, desired)
                desired = Placement.of(version)
            order = self._order(slot, desired, version)
            _log.info("%s %s version %s", order.action, order.model, order.version)
            self._execute(order)
        except Exception as failure:  # noqa: BLE001 - whatever an executor raises is a failure
            with desk.changed:
                slot.is_uncertain = isinstance(failure, Interrupted)
                self._failed(slot, desired, failure)
                desk.save()
                desk.tell()
            return
        with desk.changed:
            if desired is None:
                desk.board.withdrawn(slot)
            else:
                desk.board.deployed(slot, desired)
            desk.save()
            desk.tell()

    def _fetch(self, slot: Slot, desired: Placement) -> pb.ModelVersion:
        """Ask for a version that the log named without bringing all of it."""
        return self._client.registry.GetModelVersion(
            pb.GetModelVersionRequest(
                namespace=slot.namespace, model=slot.model, version=desired.version
            )
        ).version

    def _order(
        self, slot: Slot, desired: Placement | None, version: pb.ModelVersion | None
    ) -> Order:
        return Order(
            action="withdraw" if desired is None else "deploy",
            target=self._target,
            namespace=slot.namespace,
            model=slot.model,
            model_id=slot.model_id,
            stage=self._stage,
            version=desired.version if desired else 0,
            previous_version=slot.running.version if slot.running else 0,
            source=version.source if version else "",
            content_digest=desired.content_digest if desired else "",
            revision=self._desk.board.revision,
            model_version=version,
        )

    def _failed(self, slot: Slot, attempted: Placement | None, failure: Exception) -> None:
        _log.warning("%s: %s", slot.model, failure)
        if slot.desired is None:
            is_still_desired = attempted is None
        else:
            is_still_desired = slot.desired.is_of(attempted)
        if not is_still_desired:
            # Something else is desired by now: that this failed is no news any more.
            slot.state = slot.idle_state
            return
        slot.failures += 1
        slot.error = str(failure) or type(failure).__name__
        if isinstance(failure, Rejected):
            slot.state = pb.DEPLOYMENT_STATE_REJECTED
        else:
            slot.state = pb.DEPLOYMENT_STATE_FAILED
            slot.due_seconds = time.monotonic() + self._desk.pause(slot.failures)
