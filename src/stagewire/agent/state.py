"""The agent's memory: one JSON file, replaced whole, so that a crash leaves the old or the new.

It holds the cursor and the slots together: a cursor without what it led to would skip changes.
"""

from __future__ import annotations

import base64
import fcntl
import json
import logging
import os
import tempfile
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from stagewire import pb
from stagewire.agent.board import Board, Placement, Slot

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger("stagewire.agent")

_FORMAT = 1


class StateInUse(RuntimeError):
    """Another agent keeps its state in the same file."""


class StateFile:
    """Where a board outlives its process; without a path it does not."""

    def __init__(self, path: Path | None) -> None:
        """Name the file; nothing is touched yet."""
        self._path = path
        self._lock: int | None = None
        self._written = b""

    def acquire(self) -> None:
        """Keep other agents off the file; refuses with `StateInUse` when one is on it."""
        if self._path is None or self._lock is not None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise StateInUse(
                f"another agent keeps its state in {self._path}; give each its own state file"
            ) from None
        self._lock = lock

    def release(self) -> None:
        """Let go of the file."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def load(self, board: Board) -> None:
        """Put what was saved on the board; a file that can't be read is set aside."""
        if self._path is None or not self._path.exists():
            return
        try:
            _read(json.loads(self._path.read_bytes()), board)
        except (ValueError, KeyError, TypeError, AttributeError, json_format.ParseError):
            aside = self._path.with_name(self._path.name + ".damaged")
            self._path.replace(aside)
            board.slots.clear()
            board.cursor = b""
            _log.exception("the state file was damaged; kept as %s, beginning anew", aside)

    def save(self, board: Board) -> None:
        """Write the board, if it changed, and return when it is safe."""
        if self._path is None:
            return
        content = json.dumps(_written(board), indent=1).encode()
        if content == self._written:
            return
        descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)  # noqa: PTH105 - beside mkstemp and fsync
        except BaseException:
            os.unlink(temporary)  # noqa: PTH108 - as above
            raise
        # Without this the rename itself could be lost with the power.
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._written = content


def _written(board: Board) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "log_id": board.log_id,
        "revision": board.revision,
        "cursor": base64.b64encode(board.cursor).decode(),
        "slots": [
            {
                "namespace": slot.namespace,
                "model": slot.model,
                "model_id": slot.model_id,
                "desired": _placement(slot.desired),
                "version": None
                if slot.version is None
                else json_format.MessageToDict(slot.version, preserving_proto_field_name=True),
                "running": _placement(slot.running),
                "is_uncertain": slot.is_uncertain,
                "is_unseen": slot.is_unseen,
            }
            for slot in board.slots.values()
        ],
    }


def _placement(placement: Placement | None) -> dict[str, Any] | None:
    if placement is None:
        return None
    return {
        "model_id": placement.model_id,
        "version": placement.version,
        "content_digest": placement.content_digest,
    }


def _read(saved: dict[str, Any], board: Board) -> None:
    if saved["format"] != _FORMAT:
        raise ValueError(f"the state file has format {saved['format']}, not {_FORMAT}")
    board.log_id = str(saved["log_id"])
    board.revision = int(saved["revision"])
    board.cursor = base64.b64decode(saved["cursor"], validate=True)
    for one in saved["slots"]:
        version = one["version"]
        slot = Slot(
            str(one["namespace"]),
            str(one["model"]),
            str(one["model_id"]),
            desired=one["desired"] and Placement(**one["desired"]),
            version=version
            and json_format.ParseDict(version, pb.ModelVersion(), ignore_unknown_fields=True),
            running=one["running"] and Placement(**one["running"]),
            is_uncertain=bool(one["is_uncertain"]),
            # Not in files of older releases.
            is_unseen=bool(one.get("is_unseen", False)),
        )
        slot.settle()
        board.slots[slot.model_id] = slot
