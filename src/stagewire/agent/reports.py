"""Reports: telling the registry what runs, often enough to count as alive and no oftener."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from stagewire import pb
from stagewire.client import errors

if TYPE_CHECKING:
    from stagewire.agent.board import Slot
    from stagewire.agent.desk import Desk
    from stagewire.client import Client

_log = logging.getLogger("stagewire.agent")

#: Report this often until the registry says otherwise.
DEFAULT_PACE_SECONDS = 15.0
# Changes that come together are told together.
_LEAST_PACE_SECONDS = 1.0
# What one report may hold, and one error in it.
_MOST_TARGETS = 1000
_MOST_ERROR_CHARACTERS = 5000


class Reporter:
    """Tells what the board says, at the pace that the registry asks for."""

    def __init__(self, desk: Desk, client: Client, *, agent: str, target: str, stage: str) -> None:
        """Name who reports of what."""
        self._desk = desk
        self._client = client
        self._agent = agent
        self._target = target
        self._stage = stage
        self._session = 0
        self._seq = 0
        self._is_warned = False

    def run(self) -> None:
        """Report when there is news and when it is time, until the desk closes."""
        soonest = due = time.monotonic()
        failures = 0
        while self._wait(soonest, due):
            try:
                pace = self.send()
            except errors.StagewireError as failure:
                failures += 1
                pace = max(DEFAULT_PACE_SECONDS, self._desk.pause(failures))
                soonest = time.monotonic() + self._desk.pause(failures)
                _log.warning("the report failed: %s", failure)
            else:
                failures = 0
                soonest = time.monotonic() + min(pace, _LEAST_PACE_SECONDS)
            due = time.monotonic() + pace

    def send(self) -> float:
        """Report the whole board; return the seconds after which to report again.

        Refuses with `StagewireError`; what was to be told is then still to be told.
        """
        desk = self._desk
        with desk.changed:
            desk.is_untold = False
            # The registry takes no report of what its reporter may not see.
            slots = [slot for slot in desk.board.slots.values() if not slot.is_unseen]
            reports = self._reports(slots)
            stopped = [slot for slot in slots if slot.is_over]
        pace = 0.0
        try:
            for report in reports:
                answer = self._client.deployments.ReportStatus(report)
                pace = max(pace, answer.next_report_after.ToNanoseconds() / 1e9)
                if answer.superseded:
                    self._warn()
        except errors.StagewireError:
            with desk.changed:
                desk.is_untold = True
            raise
        with desk.changed:
            for slot in stopped:
                desk.board.forget(slot)
        return pace or DEFAULT_PACE_SECONDS

    def _warn(self) -> None:
        """Say once that another bears this agent's name; what runs here goes on."""
        if not self._is_warned:
            self._is_warned = True
            _log.warning(
                "another process reports as agent %r, and the registry shows its reports instead;"
                " stop one of them, or give each a name of its own (--name)",
                self._agent,
            )

    def _wait(self, soonest: float, due: float) -> bool:
        """Wait for the next report; False when the desk closes."""
        desk = self._desk
        with desk.changed:
            while not desk.stopping.is_set():
                left = (soonest if desk.is_untold else due) - time.monotonic()
                # Without a session the registry could not order this among other reports.
                if desk.session and left <= 0:
                    return True
                desk.changed.wait(left if desk.session else None)
        return False

    def _reports(self, slots: list[Slot]) -> list[pb.ReportStatusRequest]:
        desk = self._desk
        if desk.session != self._session:
            self._session, self._seq = desk.session, 0
        targets = [self._status(slot) for slot in slots]
        reports: list[pb.ReportStatusRequest] = []
        # Nothing to tell is told too: it is a sign of life.
        for first in range(0, max(1, len(targets)), _MOST_TARGETS):
            self._seq += 1
            reports.append(
                pb.ReportStatusRequest(
                    agent=self._agent,
                    session=self._session,
                    seq=self._seq,
                    log_id=desk.board.log_id,
                    observed_cursor=desk.board.cursor,
                    targets=targets[first : first + _MOST_TARGETS],
                )
            )
        # The board is all there is: what it does not name any more, the registry may forget.
        reports[-1].complete_from_seq = reports[0].seq
        return reports

    def _status(self, slot: Slot) -> pb.TargetStatus:
        status = pb.TargetStatus(
            target=self._target,
            model=slot.model,
            stage=self._stage,
            desired_version=slot.desired.version if slot.desired else 0,
            running_version=slot.running.version if slot.running else 0,
            running_digest=slot.running.content_digest if slot.running else "",
            state=slot.state,
            error=slot.error[:_MOST_ERROR_CHARACTERS],
        )
        status.agent_time.GetCurrentTime()
        return status
