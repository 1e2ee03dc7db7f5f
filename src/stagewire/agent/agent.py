"""The agent: follows a stage, has what it desires carried out, and reports what runs.

Three threads share a desk: the caller's reads the log, one carries out orders, one reports; so
neither a slow deployment nor a silent registry holds up the others.
"""

from __future__ import annotations

import logging
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from stagewire import pb
from stagewire.agent.board import Board
from stagewire.agent.deployer import Deployer, OnWithdraw
from stagewire.agent.desk import BACKOFF, Desk
from stagewire.agent.reports import Reporter
from stagewire.agent.state import StateFile
from stagewire.client import Snapshot, errors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import tenacity

    from stagewire.agent.orders import Executor
    from stagewire.client import Client, Event, Watch

_log = logging.getLogger("stagewire.agent")


class Agent:
    """Keeps one target running the primaries of one stage.

    `model` is a name, several names, a prefix ending in `*`, or `*` for all. `execute` is called
    with an `Order` and raises when it could not carry it out: what ran runs on, and it is asked
    again later. A stage without a primary is a withdrawal: with `on_withdraw="keep"` the last
    version goes on serving and is reported as not desired, with "stop" the executor is asked to
    withdraw it. With `state_file`, or a file named for the agent in `state_dir`, it goes on after
    a restart where it stopped; an executor that serves in this very process wants neither, for
    what runs is gone with it. `name` is unique in the namespace; it defaults to host, target
    and stage.
    """

    def __init__(
        self,
        client: Client,
        *,
        target: str,
        stage: str,
        execute: Executor,
        model: str | Sequence[str] = "*",
        name: str = "",
        on_withdraw: OnWithdraw = "keep",
        state_file: str | Path | None = None,
        state_dir: str | Path | None = None,
        backoff: tenacity.wait.wait_base = BACKOFF,
    ) -> None:
        """Prepare; nothing is read or sent before `run` or `run_once`."""
        if on_withdraw not in {"keep", "stop"}:
            raise ValueError(f"on_withdraw is {on_withdraw!r}; say keep or stop")
        self.name = name or f"{socket.gethostname()}/{target}/{stage}"
        self._client = client
        self._filter = watch_filter(model, stage)
        self._backoff = backoff
        self._state = StateFile(_state_path(self.name, state_file, state_dir))
        self._desk = Desk(Board(stage), self._state, backoff=backoff)
        self._deployer = Deployer(
            self._desk, client, execute, target=target, stage=stage, on_withdraw=on_withdraw
        )
        self._reporter = Reporter(self._desk, client, agent=self.name, target=target, stage=stage)
        self._watch: Watch | None = None
        self._fault: Exception | None = None

    @property
    def running(self) -> dict[str, int]:
        """Versions that run now, by model."""
        with self._desk.changed:
            slots = self._desk.board.slots.values()
            return {slot.model: slot.running.version for slot in slots if slot.running}

    def run(self) -> None:
        """Follow the stage until `stop`; refuses with `StateInUse` another agent's state file."""
        self._state.acquire()
        workers = [
            threading.Thread(target=self._work, args=(work,), name=f"stagewire-agent-{name}")
            for name, work in (("deployer", self._deployer.run), ("reporter", self._reporter.run))
        ]
        try:
            self._state.load(self._desk.board)
            for worker in workers:
                worker.start()
            self._follow()
        finally:
            self._end()
            for worker in workers:
                if worker.ident is not None:
                    worker.join()
            self._state.release()
        if self._fault is not None:
            raise self._fault

    def run_once(self) -> bool:
        """Do what is desired now, report it, and return whether all of it succeeded.

        Refuses with `StagewireError` when the registry does not answer, with `StateInUse`
        another agent's state file.
        """
        self._state.acquire()
        try:
            self._state.load(self._desk.board)
            # A watch waits for a server as long as it takes; this asks whether there is one.
            self._client.watches.GetHead(pb.GetHeadRequest())
            with self._client.watch(self._filter, reconnect=False) as watch:
                snapshot = next(watch, None)
                if snapshot is None:
                    raise errors.Unavailable("the stream ended before its snapshot; try again")
                self._read(snapshot, watch)
            succeeded = self._deployer.run_once()
            self._reporter.send()
            return succeeded
        finally:
            self._state.release()

    def stop(self) -> None:
        """End `run`, and the command that it may be running; safe in a signal's handler."""
        # A handler interrupts a thread that may hold the very locks that stopping needs.
        threading.Thread(target=self._end, name="stagewire-agent-stop", daemon=True).start()

    def _work(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as fault:  # noqa: BLE001 - raised again by `run`
            # Half an agent would look alive: better none, and a supervisor that sees it.
            _log.exception("a fault of the agent's own; it stops")
            self._fault = fault
            self._end()

    def _end(self) -> None:
        self._desk.close()
        with self._desk.changed:
            watch = self._watch
        if watch is not None:
            watch.close()
        self._deployer.cancel()

    def _follow(self) -> None:
        desk = self._desk
        refusals = 0
        while not desk.stopping.is_set():
            try:
                watch = self._begin()
                for event in watch:
                    self._read(event, watch)
                    refusals = 0
            except errors.StagewireError as refusal:
                if isinstance(refusal, errors.InvalidCursor) and desk.board.cursor:
                    _log.warning("the registry can't read the saved cursor; taking a snapshot")
                    desk.board.cursor = b""
                    continue
                refusals += 1
                pause = desk.pause(refusals)
                _log.error("the watch was refused (%s); again in %.0f s", refusal, pause)
                desk.stopping.wait(pause)

    def _begin(self) -> Watch:
        desk = self._desk
        with desk.changed:
            watch = self._client.watch(
                self._filter, cursor=desk.board.cursor, backoff=self._backoff
            )
            self._watch = watch
            if desk.stopping.is_set():
                watch.close()
            return watch

    def _read(self, event: Event, watch: Watch) -> None:
        desk = self._desk
        with desk.changed:
            desk.session = watch.session
            match event:
                case Snapshot():
                    desk.board.read_snapshot(event, log_id=watch.log_id)
                    self._tell_of_unseen()
                    desk.tell()
                case pb.Transaction():
                    if desk.board.read_transaction(event, log_id=watch.log_id):
                        desk.tell()
                case pb.Bookmark():
                    desk.board.read_bookmark(event, log_id=watch.log_id)
            desk.save()
            desk.changed.notify_all()

    def _tell_of_unseen(self) -> None:
        for slot in self._desk.board.slots.values():
            if slot.is_unseen and slot.running:
                _log.warning(
                    "model %r may not be seen any more; version %s runs on, and is not reported,"
                    " until a grant shows it again",
                    slot.model,
                    slot.running.version,
                )


def watch_filter(model: str | Sequence[str], stage: str) -> pb.WatchFilter:
    """Return the filter for a stage of the models meant: names, one prefix ending in `*`, or `*`.

    Refuses several patterns of which one is a prefix: a watch knows names or one prefix.
    """
    models = [model] if isinstance(model, str) else list(model)
    prefixes = [one for one in models if one.endswith("*")]
    if not models or not all(models):
        raise ValueError("say which models: a name, a prefix ending in '*', or '*' for all")
    if prefixes and len(models) > 1:
        raise ValueError(f"{prefixes[0]!r} can't be mixed with other models; run an agent for each")
    if prefixes:
        return pb.WatchFilter(model_prefix=prefixes[0][:-1], stages=[stage])
    return pb.WatchFilter(models=models, stages=[stage])


def _state_path(
    name: str, state_file: str | Path | None, state_dir: str | Path | None
) -> Path | None:
    if state_file is not None:
        return Path(state_file)
    if state_dir is not None:
        return Path(state_dir) / f"{quote(name, safe='')}.json"
    return None
