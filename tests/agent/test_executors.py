"""How orders reach a command or an address, and what counts as done."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stagewire import pb
from stagewire.agent import ExecHook, ExecutionFailed, HttpHook, Interrupted, Order

ORDER = Order(
    action="deploy",
    target="eu/prod",
    namespace="default",
    model="iris's best",
    model_id="m1",
    stage="Production",
    version=3,
    previous_version=2,
    source="file:///models/iris/3",
    content_digest="abc",
    revision=17,
    model_version=pb.ModelVersion(model="iris's best", version=3, flavors=["sklearn"]),
)


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    def write(body: str) -> str:
        path = tmp_path / "deploy.sh"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return write


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.01)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_command_gets_the_order_on_its_input_and_in_its_environment(
    script: Callable[[str], str], tmp_path: Path
) -> None:
    out = tmp_path / "out"

    ExecHook([script('cat > "$1.json"; env > "$1.env"'), str(out)])(ORDER)

    told = json.loads(Path(f"{out}.json").read_text())
    environment = Path(f"{out}.env").read_text().splitlines()
    assert told["action"] == "deploy"
    assert (told["version"], told["previous_version"]) == (3, 2)
    assert told["model_version"]["flavors"] == ["sklearn"]
    assert "STAGEWIRE_ACTION=deploy" in environment
    assert "STAGEWIRE_MODEL=iris's best" in environment
    assert "STAGEWIRE_VERSION=3" in environment
    assert "STAGEWIRE_SOURCE=file:///models/iris/3" in environment


def test_a_command_as_text_is_split_without_a_shell(tmp_path: Path) -> None:
    out = tmp_path / "a b;c"

    ExecHook(f"touch '{out}'")(ORDER)

    assert out.exists()


def test_a_status_other_than_zero_is_a_failure_with_the_last_words(
    script: Callable[[str], str],
) -> None:
    with pytest.raises(ExecutionFailed, match="status 3: no such model") as raised:
        ExecHook(script("echo no such model >&2; exit 3"))(ORDER)

    assert not isinstance(raised.value, Interrupted)


def test_a_command_that_is_not_there_is_a_failure() -> None:
    with pytest.raises(ExecutionFailed, match="can't be started"):
        ExecHook("/nowhere/deploy.sh")(ORDER)


def test_too_long_a_command_is_ended_with_its_children(
    script: Callable[[str], str], tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    hook = ExecHook([script('sleep 600 & echo $$ $! > "$1"; wait'), str(pids)], timeout_seconds=0.5)

    with pytest.raises(Interrupted, match=r"ended after 0\.5 s"):
        hook(ORDER)

    for pid in pids.read_text().split():
        until(lambda pid=int(pid): not is_alive(pid))  # type: ignore[misc]


def test_a_command_that_leaves_a_server_running_is_done_when_it_ends(
    script: Callable[[str], str], tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    begun = time.monotonic()

    ExecHook([script('sleep 600 & echo $! > "$1"'), str(pid_file)])(ORDER)

    pid = int(pid_file.read_text())
    assert is_alive(pid)
    assert time.monotonic() - begun < 60
    os.kill(pid, 9)


def test_cancelling_ends_the_command_that_runs(
    script: Callable[[str], str], tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    hook = ExecHook([script('touch "$1"; exec sleep 600'), str(begun)])
    failures: list[BaseException] = []

    def carry_out() -> None:
        with pytest.raises(Interrupted) as raised:
            hook(ORDER)
        failures.append(raised.value)

    thread = threading.Thread(target=carry_out)
    thread.start()
    until(begun.exists)
    hook.cancel()
    thread.join(10)

    assert "the agent stops" in str(failures[0])
    with pytest.raises(ExecutionFailed, match="stopping"):
        hook(ORDER)


class Receiver(BaseHTTPRequestHandler):
    answer: tuple[int, bytes] = (200, b"")
    orders: list[dict[str, Any]]
    stall: threading.Event | None = None

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.orders.append({"path": self.path, **json.loads(body)})
        if self.stall is not None:
            self.stall.wait(10)
            return
        status, text = self.answer
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def receiver() -> Iterator[tuple[str, type[Receiver]]]:
    class Own(Receiver):
        orders: list[dict[str, Any]] = []  # noqa: RUF012 - one class for each test

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Own
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_address_gets_the_order_as_json(receiver: tuple[str, type[Receiver]]) -> None:
    url, own = receiver

    HttpHook(f"{url}/deploy?x=1")(ORDER)

    assert own.orders[0]["path"] == "/deploy?x=1"
    assert own.orders[0]["model_version"]["version"] == 3


@pytest.mark.parametrize("status", [302, 404, 500])
def test_an_answer_other_than_2xx_is_a_failure(
    receiver: tuple[str, type[Receiver]], status: int
) -> None:
    url, own = receiver
    own.answer = (status, b"no room")

    with pytest.raises(ExecutionFailed, match=f"answered {status} .*: no room") as raised:
        HttpHook(url)(ORDER)

    assert len(own.orders) == 1
    assert not isinstance(raised.value, Interrupted)


def test_no_answer_in_time_leaves_it_open_what_runs(receiver: tuple[str, type[Receiver]]) -> None:
    url, own = receiver
    own.stall = threading.Event()

    with pytest.raises(Interrupted, match="did not answer"):
        HttpHook(url, timeout_seconds=0.1)(ORDER)

    own.stall.set()


def test_an_address_that_nobody_listens_on_is_a_failure() -> None:
    with pytest.raises(ExecutionFailed, match="can't be reached") as raised:
        HttpHook("http://127.0.0.1:9", timeout_seconds=1)(ORDER)

    assert not isinstance(raised.value, Interrupted)


def test_only_http_addresses_are_taken() -> None:
    with pytest.raises(ValueError, match="no http or https"):
        HttpHook("file:///etc/passwd")
