"""Executors: how an order becomes a running model, by a command or by a request.

Both are told the whole order and asked again after a failure; neither is asked twice at once.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import signal
import subprocess
import tempfile
import threading
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from stagewire.agent.orders import Interrupted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stagewire.agent.orders import Order

# What a report has room for, with the words around it.
_TAIL_BYTES = 3000
# What a command gets to put things in order before it is killed.
_GRACE_SECONDS = 5.0


class ExecutionFailed(RuntimeError):
    """The order was not carried out; what ran before runs still, and it is asked again."""


class ExecutionInterrupted(ExecutionFailed, Interrupted):
    """The order was cut off half-way: it took too long, or the agent stops."""


class ExecHook:
    """Runs a command with the order as JSON on its standard input and in its environment.

    Exit status 0 means done. After `timeout_seconds` the command's whole process group is
    ended. What a command leaves behind in the background is its own affair.
    """

    def __init__(self, command: str | Sequence[str], *, timeout_seconds: float = 600.0) -> None:
        """Keep the command; a single text is split as a shell would, without its expansions."""
        self._command = shlex.split(command) if isinstance(command, str) else list(command)
        if not self._command:
            raise ValueError("the command is empty")
        self._timeout_seconds = timeout_seconds
        self._running: subprocess.Popen[bytes] | None = None
        self._cancelled = threading.Event()

    def __call__(self, order: Order) -> None:
        """Carry out an order; refuses with `ExecutionFailed`."""
        # Files, not pipes: a server that the command starts keeps its pipes open for ever.
        with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as said:
            told.write(json.dumps(order.as_json()).encode())
            told.seek(0)
            status = self._run(order, told, said)
            if status != 0:
                raise ExecutionFailed(
                    f"{self._command[0]} ended with status {status}: {_tail(said)}"
                )

    def cancel(self) -> None:
        """End the command that runs, if one does, and start no other."""
        self._cancelled.set()
        running = self._running
        if running is not None:
            _end_group(running)

    def _run(self, order: Order, told: IO[bytes], said: IO[bytes]) -> int:
        if self._cancelled.is_set():
            raise ExecutionFailed("the agent is stopping")
        try:
            process = subprocess.Popen(  # noqa: S603 - the operator's own command, no shell
                self._command,
                stdin=told,
                stdout=said,
                stderr=subprocess.STDOUT,
                env={**os.environ, **order.as_environment()},
                start_new_session=True,
            )
        except OSError as error:
            raise ExecutionFailed(f"{self._command[0]} can't be started: {error}") from error
        self._running = process
        if self._cancelled.is_set():  # between the first look and the start
            _end_group(process)
        try:
            status = process.wait(self._timeout_seconds)
        except subprocess.TimeoutExpired:
            _end_group(process)
            raise ExecutionInterrupted(
                f"{self._command[0]} was ended after {self._timeout_seconds:g} s: {_tail(said)}"
            ) from None
        except BaseException:
            # In a session of its own it does not hear the terminal's interrupt.
            _end_group(process)
            raise
        finally:
            self._running = None
        if status != 0 and self._cancelled.is_set():
            raise ExecutionInterrupted(f"{self._command[0]} was ended because the agent stops")
        return status


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the group to end, then end it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECONDS)
    # The leader may be gone and its children not.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(said: IO[bytes]) -> str:
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - _TAIL_BYTES))
    text = said.read().decode(errors="replace").replace("\0", "�").strip()
    return text or "it said nothing"


class HttpHook:
    """Posts the order as JSON; an answer of 2xx means done. Redirects are not followed."""

    def __init__(self, url: str, *, timeout_seconds: float = 60.0) -> None:
        """Keep the address; refuses what is not http or https."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url!r} is no http or https address")
        self._url = url
        self._is_tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._timeout_seconds = timeout_seconds

    def __call__(self, order: Order) -> None:
        """Carry out an order; refuses with `ExecutionFailed`."""
        connect = http.client.HTTPSConnection if self._is_tls else http.client.HTTPConnection
        connection = connect(self._host, self._port, timeout=self._timeout_seconds)
        try:
            connection.connect()
        except OSError as error:
            raise ExecutionFailed(f"{self._url} can't be reached: {error}") from error
        try:
            connection.request(
                "POST",
                self._path,
                json.dumps(order.as_json()),
                {"Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            said = answer.read(_TAIL_BYTES).decode(errors="replace").replace("\0", "�").strip()
        except (OSError, http.client.HTTPException) as error:
            # It may have been carried out, or half of it.
            raise ExecutionInterrupted(f"{self._url} did not answer: {error}") from error
        finally:
            connection.close()
        if not http.client.OK <= answer.status < http.client.MULTIPLE_CHOICES:
            raise ExecutionFailed(f"{self._url} answered {answer.status} {answer.reason}: {said}")
