"""Deployments from the command line: drift at a glance, details, and what changes."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from stagewire import pb
from stagewire.cli import deployment_views, output
from stagewire.cli.arguments import Format
from tests.cli.conftest import Run
from tests.cli.test_log import AS_FROM_A_TERMINAL

SECONDS = 20


@pytest.fixture
def churn(registry: Run) -> Run:
    """Have two versions, the second in Production, and deployments in sync and not."""
    for _ in range(2):
        registry("version create churn --create-model")
    registry("promote churn 2 --stage Production")
    report(registry, "eu/1", 2)
    report(registry, "eu/2", 1, "--desired", 2, "--state", "failed", "--error", "OOM")
    report(registry, "us/1", 2)
    return registry


def report(registry: Run, target: str, running: int, *options: object) -> None:
    line = ("deployment", "report", "churn", "--stage", "Production", "--target", target)
    assert registry(*line, "--running", running, *options).code == 0


def targets(listed: str) -> list[str]:
    return re.findall(r"\b[a-z]{2}/\d\b", "\n".join(listed.splitlines()[1:]))


def test_what_drifts_comes_first_and_is_marked(churn: Run) -> None:
    lines = churn("deployment list").out.splitlines()

    assert lines[1].startswith("!  eu/2")
    assert "drifting" in lines[1]
    assert "OOM" in lines[1]
    assert all(line.startswith("   ") and "in sync" in line for line in lines[2:])


def test_other_outputs_are_in_the_order_of_targets(churn: Run) -> None:
    listed = churn("deployment list -o json").json

    assert [deployment["target"] for deployment in listed] == ["eu/1", "eu/2", "us/1"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--drift", ["eu/2"]),
        ("--silent", []),
        ("--prefix us/", ["us/1"]),
        ("--state failed", ["eu/2"]),
        ("--state failed --state serving", ["eu/1", "eu/2", "us/1"]),
        ("--target eu/1", ["eu/1"]),
        ("--agent us/1", ["us/1"]),
        ("--drift --prefix us/", []),
    ],
)
def test_a_list_is_filtered(churn: Run, options: str, expected: list[str]) -> None:
    table = churn(f"deployment list {options}")
    names = churn(f"deployment list {options} -o name")

    shown = sorted({found for line in table.out.splitlines()[1:] for found in targets("\n" + line)})
    assert (table.code, shown) == (0, expected)
    assert [line.partition(":")[0] for line in names.out.splitlines()] == expected


def test_a_cut_list_still_begins_with_drift_and_says_that_it_is_cut(churn: Run) -> None:
    cut = churn("deployment list --limit 2")
    whole = churn("deployment list --limit 3")

    assert [line[3:7] for line in cut.out.splitlines()[1:]] == ["eu/2", "eu/1"]
    assert "first 2" in cut.err
    assert whole.err == ""


def test_show_tells_all_of_one_target(churn: Run) -> None:
    shown = churn("deployment show eu/2")
    found = churn("deployment show eu/2 --model churn -o json").json

    assert "churn Production at eu/2" in shown.out
    for text in ("! drifting", "OOM", "FAILED", "lease", "session"):
        assert text in shown.out
    assert [one["error"] for one in found] == ["OOM"]
    assert found[0]["seq"] == 1


def test_show_of_a_target_that_nobody_reported_says_so(churn: Run) -> None:
    shown = churn("deployment show eu/9")

    assert (shown.code, shown.out) == (1, "")
    assert shown.err.endswith("(NOT_DEPLOYED)\n")
    assert churn("deployment show eu/1 --model fraud").code == 1


def test_a_forgotten_agent_is_not_listed(churn: Run) -> None:
    forgot = churn("deployment forget --agent eu/2")
    again = churn("deployment forget --agent eu/2")

    assert forgot.out == "forgot eu/2 and 1 deployment\n"
    assert again.code == 1
    assert again.err.endswith("(AGENT_NOT_FOUND)\n")
    assert churn("deployment list -o name").out.splitlines() == [
        "eu/1:churn/Production",
        "us/1:churn/Production",
    ]


def test_status_counts_what_drifts(churn: Run) -> None:
    status = churn("deployment status churn")

    assert re.search(r"drifting +1\n", status.out)
    assert churn("deployment status churn -o name").out == "2/3\n"


def test_silence_is_marked_beside_drift(capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        pb.Deployment(target="a", in_sync=True, silent=True),
        pb.Deployment(target="b", silent=True),
        pb.Deployment(target="c", in_sync=True),
    ]

    output.show_all(found, deployment_views.DEPLOYMENT, Format.TABLE)

    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [line[:2] for line in lines] == [["?", "a"], ["!?", "b"], ["c", "-"]]


class Watching:
    """`stagewire deployment watch` in a process of its own, and what it has said."""

    def __init__(self, process: "subprocess.Popen[bytes]", read: Callable[[], bytes]) -> None:
        self.process = process
        self._text = b""
        self._read = read
        self._thread = threading.Thread(target=self._collect)
        self._thread.start()

    def _collect(self) -> None:
        while chunk := self._read():
            self._text += chunk

    @property
    def text(self) -> str:
        return self._text.decode()

    def until(self, *patterns: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not all(re.search(pattern, self.text) for pattern in patterns):
            assert time.monotonic() < deadline, self.text
            assert self.process.poll() is None, self.text
            time.sleep(0.02)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(SECONDS)
        self._thread.join(SECONDS)
        return code


@contextmanager
def watching(*options: str, terminal: bool = False) -> Iterator[Watching]:
    command = [sys.executable, "-c", AS_FROM_A_TERMINAL, "deployment", "watch", *options]
    ours, theirs = pty.openpty() if terminal else os.pipe()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"}

    def read() -> bytes:
        try:
            return os.read(ours, 65536)
        except OSError:  # a terminal whose other side has left
            return b""

    with subprocess.Popen(
        command, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=environment
    ) as process:
        os.close(theirs)
        try:
            yield Watching(process, read)
        finally:
            process.kill()
    os.close(ours)


def test_a_watch_prints_a_line_a_change_and_ends_with_130(churn: Run) -> None:
    with watching("--interval", "0.2") as seen:
        seen.until("eu/1:churn/Production: runs version 2 .in sync.", "eu/2.*!.*OOM")
        report(churn, "us/1", 1)
        seen.until("us/1:churn/Production !: runs version 1, not version 2 .drifting.")
        churn("deployment forget --agent eu/2")
        seen.until("eu/2:churn/Production: gone")
        code = seen.interrupt()

    assert code == 130
    assert "Traceback" not in seen.text
    assert len(seen.text.splitlines()) == 5


def test_a_watch_hears_of_a_promotion_before_its_next_look(churn: Run) -> None:
    # Longer than the test may take: only the log can tell it.
    with watching("--interval", "600") as seen:
        seen.until("us/1")
        deadline = time.monotonic() + SECONDS
        # The log is followed from the moment the stream opens, which nothing tells from outside.
        while "drifting" not in seen.text.partition("us/1")[2]:
            assert time.monotonic() < deadline, seen.text
            churn("promote churn 1 --stage Production")
            churn("promote churn 2 --stage Production")
            churn("promote churn 1 --stage Production")


def test_a_watch_in_json_is_one_object_a_line_and_ends_after_its_count(churn: Run) -> None:
    with watching("--interval", "0.2", "--count", "1", "-o", "json", "--prefix", "eu/") as seen:
        seen.until("eu/1", "eu/2")
        report(churn, "us/1", 1)
        report(churn, "eu/1", 1)
        code = seen.process.wait(SECONDS)
        seen._thread.join(SECONDS)

    said = [json.loads(line) for line in seen.text.splitlines()]
    assert code == 0
    assert [(one["type"], one["target"]) for one in said] == [
        ("present", "eu/1"),
        ("present", "eu/2"),
        ("changed", "eu/1"),
    ]
    assert said[-1]["in_sync"] is False


def test_a_watch_on_a_terminal_repaints_its_table(churn: Run) -> None:
    with watching("--interval", "0.2", terminal=True) as seen:
        seen.until("3 deployments: 2 in sync, 1 drifting, 0 silent", "TARGET", "\x1b\\[1;31m")
        report(churn, "us/1", 1)
        seen.until("3 deployments: 1 in sync, 2 drifting, 0 silent")
        code = seen.interrupt()

    assert code == 130
    # The cursor is shown again.
    assert seen.text.rindex("\x1b[?25h") > seen.text.rindex("TARGET")
    assert "Traceback" not in seen.text


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("deployment list --state asleep", "--state"),
        ("deployment watch --interval 0", "--interval"),
        ("deployment forget", "--agent"),
        ("deployment show", "TARGET"),
    ],
)
def test_a_wrong_line_about_deployments_is_a_usage_error(run: Run, line: str, named: str) -> None:
    ran = run(f"--address 127.0.0.1:1 {line}")

    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert named in ran.err


@pytest.mark.parametrize("line", ["list", "show x", "watch", "forget --agent x"])
def test_deployments_of_a_server_that_is_not_there_are_not_waited_for(run: Run, line: str) -> None:
    ran = run(f"--address 127.0.0.1:1 deployment {line}")

    assert ran.code == 1
    assert ran.err.endswith("(UNAVAILABLE)\n")
