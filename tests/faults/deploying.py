"""One process of deployment agents: `python -m tests.faults.deploying SPEC`.

Their streams go onto a tape, like any watcher's; what they reported and what runs in the end is
written beside it. It says `ready` and `done` as `watching` does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stagewire import pb
from stagewire.agent import Agent
from stagewire.client import Client, errors
from tests.faults.load import NAMES, SPACES
from tests.faults.recordings import AgentRecord, ReportRecord
from tests.faults.scenes import impatient
from tests.faults.tapes import Tape, taped
from tests.faults.watching import BACKOFF, CATCH_UP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stagewire.agent import Order
    from stagewire.client import Event, Watch

FAILURES = 0.03
REPETITIONS = 0.2


class TapedClient(Client):
    """A client of one agent, whose watches go onto a tape and whose reports are written down."""

    def __init__(self, address: str, tape: Tape, agent: str, namespace: str) -> None:
        """Connect one agent."""
        super().__init__(address, namespace=namespace)
        self.reports: list[ReportRecord] = []
        self._tape = tape
        self._agent = agent
        self._number: int | None = None
        self._last: pb.ReportStatusRequest | None = None
        self._random = random.Random(agent)
        self._send = self.deployments.ReportStatus
        self.deployments.ReportStatus = self._report  # type: ignore[assignment]

    def watch(self, *args: Any, **options: Any) -> Watch:
        """Watch as the client does."""
        watch = super().watch(*args, **options)
        if self._number is None:
            self._number = self._tape.watcher(self._agent, watch._follower.request().filter)
        watch._begin = taped(self._channel, self._tape, self._number)
        watch._iterator = self._handed(self._number, watch._iterator)
        return watch

    def _handed(self, number: int, events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            self._tape.handed(number, event)
            yield event

    def _report(self, request: pb.ReportStatusRequest) -> pb.ReportStatusResponse:
        """Report, and now and then repeat the report before, as a slow network would."""
        told = [(t.model, t.agent_time.ToMicroseconds()) for t in request.targets]
        record = ReportRecord(
            self._agent, request.session, request.seq, told, sent=time.monotonic()
        )
        self.reports.append(record)
        answer = self._send(request)
        record.acknowledged = time.monotonic()
        if self._last is not None and self._random.random() < REPETITIONS:
            with contextlib.suppress(errors.StagewireError):
                self._send(self._last)
        self._last = request
        return answer


class Site:
    """A target with its agent: what was carried out here is what runs."""

    def __init__(self, address: str, tape: Tape, number: int, folder: Path) -> None:
        """Be the site of this number, whose ways follow from it."""
        chance = random.Random(number)
        models = ["*"], ["risk-*"], [NAMES[number % 8]], [NAMES[number % 8], NAMES[number % 5]]
        self.models = sorted(set(models[number % len(models)]))
        self.namespace = SPACES[number // 4 % len(SPACES)]
        self.stage = ("Production", "production", "Staging")[number % 3]
        self.name = f"agent-{number}"
        self.carried_out: dict[str, int] = {}
        self.client = TapedClient(address, tape, self.name, self.namespace)
        self._chance = chance
        self.agent = Agent(
            self.client,
            target=f"site-{number}",
            stage=self.stage,
            model=self.models,
            execute=self._carry_out,
            name=self.name,
            on_withdraw="stop",
            state_file=folder / f"{self.name}.json" if number % 5 == 0 else None,
            backoff=BACKOFF,
        )
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=self.name)

    def _run(self) -> None:
        try:
            self.agent.run()
        except BaseException as error:  # noqa: BLE001  # told by `is_at`
            self.failure = error

    def _carry_out(self, order: Order) -> None:
        if self._chance.random() < FAILURES:
            raise RuntimeError("the site is out of order for once")
        self.carried_out[order.model_id] = order.version

    def is_at(self, revision: int) -> bool:
        """Tell whether it has read so far, and carried out and reported all of it."""
        if self.failure is not None:
            raise self.failure
        desk, deployer = self.agent._desk, self.agent._deployer
        with desk.changed:
            return (
                desk.board.log_id != ""
                and desk.board.revision >= revision
                and all(deployer._is_as_desired(slot) for slot in desk.board.slots.values())
                and not desk.is_untold
            )

    def record(self) -> AgentRecord:
        """Say what runs."""
        return AgentRecord(
            self.name,
            self.namespace,
            self.stage,
            self.models,
            self.agent.running,
            self.carried_out,
        )


def until(sites: list[Site], revision: int) -> None:
    """Wait until every site is so far."""
    deadline = time.monotonic() + CATCH_UP_SECONDS
    behind = sites
    while behind := [site for site in behind if not site.is_at(revision)]:
        assert time.monotonic() < deadline, [site.name for site in behind]
        threading.Event().wait(0.05)


def main(spec: dict[str, Any]) -> None:
    """Play the sites that the spec numbers."""
    path = Path(spec["tape"])
    tape = Tape(path)
    with impatient() if spec["impatient"] else contextlib.nullcontext():
        sites = [
            Site(spec["address"], tape, number, path.parent) for number in range(spec["count"])
        ]
    try:
        for site in sites:
            site.thread.start()
        until(sites, 0)
        print("ready", flush=True)  # noqa: T201  # the parent waits for it
        until(sites, int(sys.stdin.readline()))
    finally:
        for site in sites:
            site.agent.stop()
        for site in sites:
            site.thread.join(20)
            site.client.close()
        tape.close()
    content = {
        "agents": [dataclasses.asdict(site.record()) for site in sites],
        "reports": [dataclasses.asdict(r) for site in sites for r in site.client.reports],
    }
    path.with_suffix(".json").write_text(json.dumps(content))
    print("done", flush=True)  # noqa: T201  # as above


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
