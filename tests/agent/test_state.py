"""The agent's memory: whole or not at all, for one agent at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stagewire import pb
from stagewire.agent import StateInUse
from stagewire.agent.board import Board
from stagewire.agent.state import StateFile
from tests.agent.test_board import board, item, run_desired, snapshot, version


def loaded(path: Path) -> Board:
    made = Board("Production")
    StateFile(path).load(made)
    return made


def saved(path: Path) -> Board:
    made = board(item(version(2)), item(version(9, model="lily", model_id="m2")), revision=7)
    run_desired(made)
    StateFile(path).save(made)
    return made


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    before = saved(path)

    after = loaded(path)

    assert (after.log_id, after.revision, after.cursor) == ("log-a", 7, b"c7")
    assert after.slots == before.slots
    assert [slot.state for slot in after.slots.values()] == [pb.DEPLOYMENT_STATE_SERVING] * 2


def test_what_was_held_out_of_sight_is_held_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    before = saved(path)
    before.read_snapshot(snapshot(9, item(version(2)), seen=["iris"]), log_id="log-a")
    StateFile(path).save(before)

    after = loaded(path)

    assert [slot.is_unseen for slot in after.slots.values()] == [False, True]
    assert after.slots == before.slots


def test_the_file_of_an_older_release_is_read(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    before = saved(path)
    written = json.loads(path.read_text())
    for slot in written["slots"]:
        del slot["is_unseen"]
    path.write_text(json.dumps(written))

    assert loaded(path).slots == before.slots


def test_nothing_saved_is_an_empty_board(tmp_path: Path) -> None:
    assert loaded(tmp_path / "none.json").slots == {}


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agent.json"
    saved(path)
    before = path.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        StateFile(path).save(board(item(version(3)), revision=8))

    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["agent.json"]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"format": 99}', b'{"format": 1', b"\xff\xfe"], ids=repr
)
def test_a_damaged_file_is_set_aside_and_the_agent_begins_anew(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "agent.json"
    path.write_bytes(content)

    after = loaded(path)

    assert after.slots == {}
    assert after.cursor == b""
    assert (tmp_path / "agent.json.damaged").read_bytes() == content


def test_a_second_agent_on_the_same_file_is_refused(tmp_path: Path) -> None:
    first, second = StateFile(tmp_path / "agent.json"), StateFile(tmp_path / "agent.json")
    first.acquire()

    with pytest.raises(StateInUse, match="give each its own"):
        second.acquire()

    first.release()
    second.acquire()
    second.release()
