"""The agent's loop: what is desired comes to run, failures keep what runs, and all is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tenacity
from google.protobuf.duration_pb2 import Duration

from stagewire import pb
from stagewire.agent import Agent, Order, Rejected
from stagewire.agent.agent import watch_filter
from stagewire.client import Client, errors
from tests.agent.test_board import full, item, left, version
from tests.client.scripted import Hang, Refusal, Registry, bookmark, hello, snapshot
from tests.client.scripted import transaction as said_transaction

PACE = pb.ReportStatusResponse(next_report_after=Duration(nanos=20_000_000))


class Executor:
    """Notes its orders, and fails as told."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.failures: list[Exception] = []
        self.proceed = threading.Event()
        self.proceed.set()

    def __call__(self, order: Order) -> None:
        self.orders.append(order)
        self.proceed.wait(10)
        if self.failures:
            raise self.failures.pop(0)

    @property
    def told(self) -> list[tuple[str, str, int, int]]:
        return [(one.action, one.model, one.version, one.previous_version) for one in self.orders]


class Running:
    """A registry, an agent following it, and what both saw."""

    def __init__(self, folder: Path) -> None:
        self.registry = Registry()
        self.registry.on("ReportStatus", PACE)
        self.registry.on("GetHead", pb.GetHeadResponse(log_id="log-a", revision=1))
        self.client = Client(self.registry.address)
        self.executor = Executor()
        self.folder = folder
        self.agent: Agent | None = None
        self._thread: threading.Thread | None = None

    def make(self, **options: Any) -> Agent:
        return Agent(
            self.client,
            **{
                "target": "eu/prod",
                "stage": "Production",
                "execute": self.executor,
                "name": "agent-1",
                "state_dir": self.folder,
                "backoff": tenacity.wait_none(),
                **options,
            },
        )

    def start(self, *stream: Any, **options: Any) -> Agent:
        self.registry.streams.append([*stream, Hang()])
        self.agent = self.make(**options)
        self._thread = threading.Thread(target=self.agent.run)
        self._thread.start()
        return self.agent

    def stop(self) -> None:
        if self.agent is not None and self._thread is not None:
            self.agent.stop()
            self._thread.join(10)
            assert not self._thread.is_alive()
            self.agent = None

    def close(self) -> None:
        self.executor.proceed.set()
        self.stop()
        self.client.close()
        self.registry.stop()

    def until(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        pause = threading.Event()
        while not condition():
            assert time.monotonic() < deadline, f"not in time; reported {self.last_report}"
            pause.wait(0.005)

    def until_runs(self, **versions: int) -> None:
        agent = self.agent
        assert agent is not None
        self.until(lambda: agent.running == versions)

    def until_reported(self, **fields: Any) -> pb.TargetStatus:
        def is_reported() -> bool:
            report = self.last_report
            return (
                report is not None
                and bool(report.targets)
                and all(getattr(report.targets[0], name) == value for name, value in fields.items())
            )

        self.until(is_reported)
        report = self.last_report
        assert report is not None
        return report.targets[0]

    @property
    def last_report(self) -> pb.ReportStatusRequest | None:
        reports = self.registry.requests("ReportStatus")
        return reports[-1] if reports else None

    @property
    def saved(self) -> dict[str, Any]:
        saved: dict[str, Any] = json.loads((self.folder / "agent-1.json").read_text())
        return saved


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path)
    yield made
    made.close()


def tx(revision: int, *changes: pb.Change) -> pb.WatchResponse:
    return said_transaction(revision, *changes)


def test_what_the_snapshot_desires_comes_to_run_and_is_reported(running: Running) -> None:
    running.start(hello(session=7), *snapshot(5, item(version(3))))

    running.until_runs(iris=3)
    status = running.until_reported(state=pb.DEPLOYMENT_STATE_SERVING)

    report = running.last_report
    assert report is not None
    assert running.executor.told == [("deploy", "iris", 3, 0)]
    assert running.executor.orders[0].source == "file:///iris/3"
    assert (report.agent, report.session, report.log_id) == ("agent-1", 7, "log-a")
    assert report.observed_cursor == b"c5"
    assert (status.target, status.model, status.stage) == ("eu/prod", "iris", "Production")
    assert (status.desired_version, status.running_version) == (3, 3)
    assert status.running_digest == "digest of m1/3"


def test_a_promotion_and_a_rollback_are_followed(running: Running) -> None:
    gate = threading.Event()
    running.start(
        hello(),
        *snapshot(5, item(version(1))),
        tx(6, full(version(2)), left(1)),
        lambda: gate.wait(10),
        tx(7, full(version(1)), left(2)),
    )

    running.until_runs(iris=2)
    gate.set()
    running.until_runs(iris=1)

    assert running.executor.told[-1] == ("deploy", "iris", 1, 2)


def test_a_failure_keeps_what_runs_advances_the_cursor_and_is_tried_again(
    running: Running,
) -> None:
    gate = threading.Event()
    running.start(
        hello(),
        *snapshot(5, item(version(1))),
        lambda: gate.wait(10),
        tx(6, full(version(2)), left(1)),
        backoff=tenacity.wait_fixed(0.3),
    )
    running.until_runs(iris=1)
    running.executor.failures = [RuntimeError("out of memory"), RuntimeError("still")]
    gate.set()

    failed = running.until_reported(state=pb.DEPLOYMENT_STATE_FAILED)
    cursor = running.saved["cursor"]
    running.until_runs(iris=2)

    assert (failed.desired_version, failed.running_version) == (2, 1)
    assert failed.error in {"out of memory", "still"}
    assert cursor == "YzY="  # c6
    assert running.executor.told[1:] == [("deploy", "iris", 2, 1)] * 3
    assert running.until_reported(state=pb.DEPLOYMENT_STATE_SERVING).error == ""


def test_a_rejected_order_is_not_tried_again_until_there_is_another(running: Running) -> None:
    gate = threading.Event()
    running.executor.failures = [Rejected("bad signature")]
    running.start(
        hello(),
        *snapshot(5, item(version(1))),
        lambda: gate.wait(10),
        tx(6, full(version(2)), left(1)),
    )

    rejected = running.until_reported(state=pb.DEPLOYMENT_STATE_REJECTED)
    orders = len(running.executor.orders)
    gate.set()
    running.until_runs(iris=2)

    assert rejected.error == "bad signature"
    assert orders == 1
    assert [order.version for order in running.executor.orders] == [1, 2]


def test_a_withdrawn_version_goes_on_serving_by_default(running: Running) -> None:
    gate = threading.Event()
    running.start(hello(), *snapshot(5, item(version(1))), lambda: gate.wait(10), tx(6, left(1)))
    running.until_runs(iris=1)
    gate.set()

    status = running.until_reported(desired_version=0)

    assert (status.running_version, status.state) == (1, pb.DEPLOYMENT_STATE_SERVING)
    assert running.executor.told == [("deploy", "iris", 1, 0)]


def test_a_withdrawn_version_is_stopped_where_that_is_wanted(running: Running) -> None:
    gate = threading.Event()
    running.start(
        hello(),
        *snapshot(5, item(version(1))),
        lambda: gate.wait(10),
        tx(6, left(1)),
        on_withdraw="stop",
    )
    running.until_runs(iris=1)
    gate.set()

    running.until_runs()
    running.until(lambda: running.last_report is not None and not running.last_report.targets)

    states = [
        (report.targets[0].state, report.targets[0].running_version)
        for report in running.registry.requests("ReportStatus")
        if report.targets
    ]
    assert running.executor.told[-1] == ("withdraw", "iris", 0, 1)
    assert states[-1] == (pb.DEPLOYMENT_STATE_STOPPED, 0)


def test_after_a_restart_it_goes_on_where_it_stopped(running: Running) -> None:
    running.start(hello(), *snapshot(5, item(version(1))), tx(6, full(version(2)), left(1)))
    running.until_runs(iris=2)
    running.until(lambda: running.saved["cursor"] == "YzY=")
    running.stop()

    running.start(hello(session=2), bookmark(9))
    running.until(lambda: running.saved["cursor"] == "Yzk=")

    assert running.registry.requests("Watch")[-1].cursor == b"c6"
    assert running.registry.requests("Watch")[-1].snapshot_on_reset
    assert [order.version for order in running.executor.orders][-1] == 2
    assert running.agent is not None
    assert running.agent.running == {"iris": 2}


def test_an_order_cut_off_by_a_crash_is_given_again(running: Running) -> None:
    running.start(hello(), *snapshot(5, item(version(1))))
    running.until_runs(iris=1)
    running.stop()
    # As a crash in the middle of deploying version 2 leaves it; then it was rolled back.
    saved = running.saved
    saved["slots"][0]["is_uncertain"] = True
    (running.folder / "agent-1.json").write_text(json.dumps(saved))

    running.start(hello(session=2), bookmark(9))

    running.until(lambda: len(running.executor.orders) == 2)
    assert running.executor.told[-1] == ("deploy", "iris", 1, 1)


def test_lost_history_takes_it_backwards(running: Running) -> None:
    running.registry.streams = [
        [
            hello(),
            *snapshot(5, item(version(1))),
            tx(6, full(version(2)), left(1)),
            Refusal("UNAVAILABLE"),
        ]
    ]
    running.start(
        hello(session=2),
        *snapshot(4, item(version(1)), reason=pb.SNAPSHOT_REASON_LOG_DIVERGED),
    )

    running.until(lambda: running.last_report is not None and running.last_report.session == 2)
    running.until_runs(iris=1)

    assert running.saved["revision"] == 4


def test_a_cursor_that_the_registry_cannot_read_is_given_up_for_a_snapshot(
    running: Running,
) -> None:
    running.start(hello(), *snapshot(5, item(version(1))))
    running.until_runs(iris=1)
    running.stop()
    running.registry.streams = [[Refusal("INVALID_ARGUMENT", "INVALID_CURSOR")]]

    running.start(hello(session=2), *snapshot(8, item(version(3))))

    running.until_runs(iris=3)
    assert [request.cursor for request in running.registry.requests("Watch")] == [b"", b"c5", b""]


def test_a_refused_watch_is_asked_for_again(running: Running) -> None:
    running.registry.streams = [[Refusal("NOT_FOUND", "NAMESPACE_NOT_FOUND")]]

    running.start(hello(), *snapshot(5, item(version(1))))

    running.until_runs(iris=1)


EXPIRED = Refusal("UNAUTHENTICATED", "CREDENTIALS_EXPIRED", "the token has expired")


def test_an_agent_whose_token_ends_goes_on_with_the_renewed_one(
    running: Running, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    running.client.close()
    running.client = Client(running.registry.address, token_file=token)
    running.registry.on("ReportStatus", PACE, EXPIRED, PACE)
    renew: Callable[[], object] = lambda: token.write_text("renewed")  # noqa: E731
    running.registry.streams = [
        [EXPIRED],
        [hello(), *snapshot(5, item(version(1))), renew, EXPIRED],
    ]

    running.start(hello(session=2), tx(6, full(version(2))))

    running.until_runs(iris=2)
    running.until_reported(state=pb.DEPLOYMENT_STATE_SERVING, running_version=2)
    watches = [call for call in running.registry.calls if call.method == "Watch"]
    assert [call.metadata["authorization"] for call in watches] == [
        "Bearer first",
        "Bearer first",
        "Bearer renewed",
    ]
    assert running.registry.calls[-1].metadata["authorization"] == "Bearer renewed"


def test_an_agent_that_is_not_let_in_asks_as_seldom_as_its_backoff_says(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    running.registry.streams = [[EXPIRED]]

    running.start(backoff=tenacity.wait_fixed(3600))

    running.until(lambda: "the token has expired); again in 3600 s" in caplog.text)
    assert len(running.registry.requests("Watch")) == 1


def test_a_slow_deployment_holds_up_neither_reading_nor_reporting(running: Running) -> None:
    running.executor.proceed.clear()
    running.start(
        hello(),
        *snapshot(5, item(version(1))),
        tx(6, full(version(2)), left(1)),
        tx(7, full(version(3)), left(2)),
    )

    status = running.until_reported(desired_version=3)
    running.executor.proceed.set()
    running.until_runs(iris=3)

    assert status.state in {pb.DEPLOYMENT_STATE_APPLYING, pb.DEPLOYMENT_STATE_PENDING}
    assert [order.version for order in running.executor.orders][-1] == 3


def test_reports_are_counted_within_a_session_and_never_go_back(running: Running) -> None:
    running.registry.streams = [[hello(session=1), *snapshot(5), Refusal("UNAVAILABLE")]]
    running.start(hello(session=2), bookmark(6))

    running.until(
        lambda: (
            sum(report.session == 2 for report in running.registry.requests("ReportStatus")) >= 3
        )
    )

    order = [(report.session, report.seq) for report in running.registry.requests("ReportStatus")]
    assert order == sorted(set(order))


def test_a_report_that_fails_is_sent_again(running: Running) -> None:
    running.registry.on("ReportStatus", Refusal("RESOURCE_EXHAUSTED", "OVERLOADED"), PACE)

    running.start(hello(), *snapshot(5, item(version(1))))

    running.until_reported(state=pb.DEPLOYMENT_STATE_SERVING)


def test_a_board_too_large_for_one_report_is_told_in_several_that_are_complete_together(
    running: Running,
) -> None:
    models = [
        item(version(1, model=f"m{number}", model_id=f"id-{number}")) for number in range(1001)
    ]
    running.registry.streams = [[hello(), *snapshot(5, *models), Hang()]]

    running.make(state_dir=None).run_once()

    first, second = running.registry.requests("ReportStatus")
    assert (len(first.targets), len(second.targets)) == (1000, 1)
    assert (first.complete_from_seq, second.complete_from_seq) == (0, first.seq)
    assert second.seq == first.seq + 1


def test_an_agent_that_is_superseded_says_so_once_and_goes_on(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    said = pb.ReportStatusResponse(superseded=True)
    said.next_report_after.CopyFrom(PACE.next_report_after)
    running.registry.on("ReportStatus", said)

    running.start(hello(), *snapshot(5, item(version(1))))
    running.until(lambda: len(running.registry.requests("ReportStatus")) >= 3)

    running.until_runs(iris=1)
    warnings = [one.message for one in caplog.records if "another process" in one.message]
    assert len(warnings) == 1
    assert "'agent-1'" in warnings[0]
    assert "--name" in warnings[0]


def test_a_version_named_but_not_brought_is_fetched(running: Running) -> None:
    whole = version(3)
    running.registry.on("GetModelVersion", pb.GetModelVersionResponse(version=whole))
    lean = item(version(3))
    lean.version.source = ""
    lean.omitted_texts.add(path="source", size_bytes=2000)

    running.start(hello(), *snapshot(5, lean))

    running.until_runs(iris=3)
    assert running.executor.orders[0].source == "file:///iris/3"


def test_a_fault_of_its_own_ends_the_whole_agent(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down() -> None:
        raise ZeroDivisionError

    agent = running.make()
    monkeypatch.setattr(agent._deployer, "run", break_down)

    with pytest.raises(ZeroDivisionError):
        agent.run()


def test_once_does_what_is_desired_reports_and_says_whether_it_succeeded(
    running: Running,
) -> None:
    running.registry.streams = [
        [hello(), *snapshot(5, item(version(1))), Hang()],
        [hello(), *snapshot(6, item(version(2))), Hang()],
    ]

    succeeded = running.make().run_once()
    running.executor.failures = [RuntimeError("no")]
    failed = running.make().run_once()

    first, second = running.registry.requests("ReportStatus")
    assert (succeeded, failed) == (True, False)
    assert first.targets[0].state == pb.DEPLOYMENT_STATE_SERVING
    assert second.targets[0].state == pb.DEPLOYMENT_STATE_FAILED
    assert second.targets[0].running_version == 1


def test_once_does_not_wait_for_a_registry_that_is_not_there(running: Running) -> None:
    running.registry.stop()

    with pytest.raises(errors.Unavailable):
        running.make().run_once()


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("*", pb.WatchFilter(stages=["Production"])),
        ("iris", pb.WatchFilter(models=["iris"], stages=["Production"])),
        ("iris*", pb.WatchFilter(model_prefix="iris", stages=["Production"])),
        (["a", "b"], pb.WatchFilter(models=["a", "b"], stages=["Production"])),
    ],
)
def test_models_are_names_a_prefix_or_all(model: Any, expected: pb.WatchFilter) -> None:
    assert watch_filter(model, "Production") == expected


@pytest.mark.parametrize("model", [["a", "b*"], [], ""])
def test_models_that_a_watch_cannot_express_are_refused(model: Any) -> None:
    with pytest.raises(ValueError, match=r"mixed|which models"):
        watch_filter(model, "Production")
