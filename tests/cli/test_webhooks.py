"""Webhooks from the command line, against a real server and a real receiver."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.factories import eventually
from tests.receivers import Receiver, Reply


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Listen for posts."""
    with Receiver() as listening:
        yield listening


def create(run: Run, receiver: Receiver, *options: str) -> str:
    made = run("webhook create ci --url", receiver.url, "-o", "name", *options)
    assert made.code == 0, made.err
    return made.out.strip()


def test_a_webhook_is_created_listed_changed_and_deleted(registry: Run, receiver: Receiver) -> None:
    id_ = create(registry, receiver, "-e", "model_version.created", "--model", "churn")

    listed = registry("webhook list").out
    got = registry("webhook get -o json", id_).json
    changed = registry("webhook update --disable --name builds -o json", id_).json
    deleted = registry("webhook delete", id_)

    assert id_ in listed
    assert (got["events"], got["models"]) == (["model_version.created"], ["churn"])
    assert got["progress"]["lag_revisions"] == 0
    assert (changed["name"], changed["status"]) == ("builds", "WEBHOOK_STATUS_DISABLED")
    assert deleted.out == f"deleted webhook {id_}\n"
    assert registry("webhook get", id_).err.endswith("(WEBHOOK_NOT_FOUND)\n")


def test_a_secret_is_read_from_a_file_or_standard_input_and_never_shown(
    registry: Run, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret"
    path.write_text("hidden\n")
    id_ = create(registry, receiver, "-e", "*", "--secret-file", str(path))
    shown = registry("webhook get -o json", id_)
    monkeypatch.setattr("sys.stdin", io.StringIO("other"))
    again = registry("webhook update --secret-file -", id_)

    assert shown.json["signed"] is True
    assert "hidden" not in shown.out
    assert (again.code, again.err) == (0, "")
    missing = registry("webhook update --secret-file /nowhere/secret", id_)
    assert (missing.code, missing.err.count("\n")) == (2, 1)


def test_what_became_of_events_is_listed_and_done_once_more(
    registry: Run, receiver: Receiver
) -> None:
    receiver.answer = lambda _post: Reply(500)
    id_ = create(registry, receiver, "-e", "registered_model.created")
    registry("model create churn")

    def dead() -> str:
        return registry("webhook deliveries --status dead -o name", id_).out.strip()

    eventually(dead)
    delivery = dead()
    table = registry("webhook deliveries", id_).out
    receiver.answer = lambda _post: Reply(200)

    queued = registry("webhook redeliver --dead-since 1", id_)

    assert "DEAD 500" in table
    assert queued.out == "queued 1\n"
    assert receiver.expect(1)[0].id == delivery
    eventually(lambda: not dead())


def test_a_test_exits_by_how_the_receiver_answered(registry: Run, receiver: Receiver) -> None:
    id_ = create(registry, receiver, "-e", "*")
    good = registry("webhook test -e model_version.created", id_)
    receiver.answer = lambda _post: Reply(500)

    bad = registry("webhook test", id_)

    assert (good.code, good.out) == (0, "taken: answered with 204\n")
    assert (bad.code, bad.out) == (1, "not taken: answered with 500\n")


def test_what_makes_no_sense_is_a_usage_error(registry: Run, receiver: Receiver) -> None:
    id_ = create(registry, receiver, "-e", "*")

    for line in ("webhook update", "webhook update --skip", "webhook deliveries --status lost"):
        ran = registry(line, id_)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)


def test_a_change_of_a_webhook_is_told_in_the_log(registry: Run, receiver: Receiver) -> None:
    create(registry, receiver, "-e", "*")

    assert "webhook ci: created" in registry("event list").out
