"""What clients of a registry saw and did, written down while it happens.

Streams are recorded as their messages come off the wire, before the SDK takes out what it must not
hand on; what the SDK does hand on is recorded beside them.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stagewire import pb
from tests.faults.fold import Telling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

    from stagewire.client import Client
    from stagewire.client.follower import Event
    from stagewire.client.watch import Watch


@dataclass(slots=True)
class Heard:
    """One message of a stream and when it was taken."""

    time: float
    message: pb.WatchResponse


@dataclass
class StreamRecord:
    """One stream: what was asked for, and what came."""

    request: pb.WatchRequest
    opened: float = 0.0
    heard: list[Heard] = field(default_factory=list)
    ended: float | None = None
    #: Its status, where a tape knows it; "CLOSED" when the client had no more use for it.
    end: str = ""


@dataclass
class WatcherRecord:
    """One watcher over all its streams."""

    name: str
    filter: pb.WatchFilter
    #: A watcher that dawdles is told nothing about the server by the time between its messages.
    dawdles: bool = False
    streams: list[StreamRecord] = field(default_factory=list)
    #: What the SDK handed out.
    events: list[Event] = field(default_factory=list)
    position: int = 0


@dataclass
class WriteRecord:
    """One write with one request_id, over all its attempts."""

    request_id: str
    sent: float
    acknowledged: float | None = None
    #: One for the acknowledgement, more for repetitions made afterwards.
    answers: list[Message] = field(default_factory=list)
    attempts: int = 0
    refusal: str = ""


@dataclass(frozen=True)
class Mark:
    """The revision up to which a compaction let the log go, and when that was about to commit."""

    time: float
    revision: int


@dataclass
class ReportRecord:
    """One report of an agent; what it says of models is told apart by the agent's clock."""

    agent: str
    session: int
    seq: int
    #: Model and the agent's time in microseconds, one for each target.
    told: list[tuple[str, int]]
    sent: float
    acknowledged: float | None = None


@dataclass
class Poll:
    """What ListDeployments answered once."""

    began: float
    deployments: list[pb.Deployment]


@dataclass
class AgentRecord:
    """One deployment agent, and what its target runs in the end."""

    name: str
    namespace: str
    stage: str
    models: list[str]
    running: dict[str, int]
    #: The version last deployed, by model id; 0 after a withdrawal.
    carried_out: dict[str, int]


@dataclass
class MemorySample:
    """What one server's process held at a moment of one of its lives."""

    server: str
    life: int
    seconds: float
    time: float
    rss_bytes: int


@dataclass
class History:
    """Everything that checkers look at."""

    log_id: str = ""
    #: Every event from the first on; what was compacted comes from an archive.
    log: list[pb.Event] = field(default_factory=list)
    #: The first revision that the registry itself still listed in the end.
    first_listed: int = 1
    #: Every mark that the log had, in order; none when nothing was compacted.
    marks: list[Mark] = field(default_factory=list)
    head: pb.GetHeadResponse = field(default_factory=pb.GetHeadResponse)
    verified: pb.VerifyLogResponse = field(default_factory=pb.VerifyLogResponse)
    watchers: list[WatcherRecord] = field(default_factory=list)
    writes: list[WriteRecord] = field(default_factory=list)
    #: What the lists of each namespace answered in the end.
    models: list[pb.Model] = field(default_factory=list)
    versions: list[pb.ModelVersion] = field(default_factory=list)
    stages: list[pb.Stage] = field(default_factory=list)
    namespaces: list[pb.Namespace] = field(default_factory=list)
    agents: list[AgentRecord] = field(default_factory=list)
    reports: list[ReportRecord] = field(default_factory=list)
    polls: list[Poll] = field(default_factory=list)
    memory: list[MemorySample] = field(default_factory=list)
    ring_bytes: int = 0
    #: A server's life is settled after so long: its streams are back, its ring is full.
    settled_seconds: float = 60.0
    bookmark_seconds: float = 15.0
    #: How much later than promised something may be on a busy machine.
    slack_seconds: float = 5.0
    #: What watchers of a filter are told of the log, for checkers that ask again and again.
    tellings: dict[bytes, Telling] = field(default_factory=dict)

    def telling(self, filter_: pb.WatchFilter) -> Telling:
        """Say what of the log this filter's watchers are told."""
        key = filter_.SerializeToString(deterministic=True)
        if key not in self.tellings:
            self.tellings[key] = Telling(filter_, self.log)
        return self.tellings[key]

    def least_mark(self, moment: float) -> int:
        """Give the mark that the log had at least: of the last one the commit may be to come."""
        passed = [mark.revision for mark in self.marks if mark.time < moment]
        return passed[-2] if len(passed) > 1 else 0

    def most_mark(self, moment: float) -> int:
        """Give the mark that the log had at most."""
        return max((mark.revision for mark in self.marks if mark.time < moment), default=0)


class _Tapped:
    """A call whose messages are written down as they are taken."""

    def __init__(self, call: Any, record: StreamRecord) -> None:
        self._call = call
        self._record = record

    def __iter__(self) -> Iterator[pb.WatchResponse]:
        return self

    def __next__(self) -> pb.WatchResponse:
        message: pb.WatchResponse = next(self._call)
        # A copy: the SDK fills in what a state leaves unset.
        heard = pb.WatchResponse()
        heard.CopyFrom(message)
        self._record.heard.append(Heard(time.monotonic(), heard))
        return message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


def tap(watch: Watch, record: WatcherRecord) -> Watch:
    """Have every stream that a watch opens written down."""
    begin = watch._begin

    def opened(request: pb.WatchRequest, **options: Any) -> _Tapped:
        stream = StreamRecord(request, time.monotonic())
        record.streams.append(stream)
        return _Tapped(begin(request, **options), stream)

    watch._begin = opened
    return watch


def take_stock(client: Client, history: History) -> None:
    """Write down the log, its verification, and what the registry's lists answer."""
    history.head = client.watches.GetHead(pb.GetHeadRequest())
    history.log_id = history.head.log_id
    history.log = read_log(client)
    history.first_listed = history.log[0].revision if history.log else history.head.revision + 1
    first = 0
    while True:
        history.verified = client.audit.VerifyLog(pb.VerifyLogRequest(from_revision=first))
        if not history.verified.intact:
            return
        if history.verified.last_revision >= history.verified.head_revision:
            break
        first = history.verified.last_revision + 1
    listed = client.namespaces.ListNamespaces(pb.ListNamespacesRequest(page_size=1000))
    history.namespaces = list(listed.namespaces)
    for space in history.namespaces:
        named = {"namespace": space.name, "page_size": 1000}
        history.models += pages(client.registry.ListModels, pb.ListModelsRequest, "models", named)
        history.versions += pages(
            client.registry.ListModelVersions, pb.ListModelVersionsRequest, "versions", named
        )
        history.stages += pages(client.stages.ListStages, pb.ListStagesRequest, "stages", named)


def read_log(client: Client) -> list[pb.Event]:
    """Read the whole retained log, oldest first."""
    named = {"namespace": "*", "page_size": 1000}
    found: list[pb.Event] = pages(client.audit.ListEvents, pb.ListEventsRequest, "events", named)
    return found[::-1]


def pages(call: Any, request: Any, name: str, fields: dict[str, Any]) -> list[Any]:
    found: list[Any] = []
    token = ""
    while True:
        page = call(request(page_token=token, **fields))
        found.extend(getattr(page, name))
        token = page.next_page_token
        if not token:
            return found


class Recorder(threading.Thread):
    """One watcher at work: it follows with the SDK, dawdles or reconnects, and is written down."""

    def __init__(
        self,
        client: Client,
        record: WatcherRecord,
        *,
        start: str,
        backoff: Any,
        reconnect_after: int = 0,
        away_seconds: float = 0.0,
        dawdle_seconds: float = 0.0,
    ) -> None:
        super().__init__(name=f"watcher-{record.name}")
        self._client = client
        self._start_at = start
        self._backoff = backoff
        self._reconnect_after = reconnect_after
        self._away_seconds = away_seconds
        self._dawdle_seconds = dawdle_seconds
        self._halted = threading.Event()
        self._wanted = threading.Event()
        self._wanted.set()
        self._watch: Watch | None = None
        self.away = threading.Event()
        self.hurry = threading.Event()
        self.record = record
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            cursor = b""
            while not self._halted.is_set():
                cursor = self._follow(cursor)
                self.hurry.wait(self._away_seconds)
                if not self._wanted.is_set():
                    self.away.set()
                    self._wanted.wait()
                    self.away.clear()
        except BaseException as error:  # noqa: BLE001  # told by `stop`
            self.failure = error

    def _follow(self, cursor: bytes) -> bytes:
        """Follow for a while, or to the end; answer where to go on."""
        watch = self._client.watch(
            self.record.filter, cursor=cursor, start=self._start_at, backoff=self._backoff
        )
        self._watch = tap(watch, self.record)
        if self._halted.is_set() or not self._wanted.is_set():
            return cursor
        with watch:
            for count, event in enumerate(watch, start=1):
                self.record.events.append(event)
                self.record.position = event.revision
                if self._dawdle_seconds and not self.hurry.is_set():
                    self.hurry.wait(self._dawdle_seconds)
                if self._reconnect_after and count >= self._reconnect_after:
                    break
            return watch.cursor

    def leave(self) -> None:
        """Have it close its stream and stay away; `away` is set when it has."""
        self._wanted.clear()
        if self._watch is not None:
            self._watch.close()

    def come_back(self) -> None:
        """Have it go on from its cursor."""
        self._wanted.set()

    def abandon(self) -> None:
        """Have it end, without waiting for that."""
        self._halted.set()
        self._wanted.set()
        if self._watch is not None:
            self._watch.close()

    def stop(self) -> None:
        """End it, and raise what it stumbled over."""
        self.abandon()
        self.join(20)
        assert not self.is_alive(), self.name
        if self.failure is not None:
            raise self.failure
