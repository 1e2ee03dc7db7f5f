"""Events, watches, deployments and the log's proof, against a real server."""

import json
import subprocess
import sys

from tests.cli.conftest import Run


def test_events_say_who_did_what_and_why(registry: Run) -> None:
    registry("model create churn --reason 'to begin'")
    registry("version create churn")
    registry("promote churn 1 --stage Staging")

    moves = registry("event list --kind stages-changed -o json").json
    table = registry("event list --model churn --since 1h")

    assert moves[0]["payload"]["records"][0]["change"]["kind"] == "CHANGE_KIND_STAGES_CHANGED"
    assert isinstance(moves[0]["revision"], int)
    assert "churn/1: entered Staging" in table.out
    assert "to begin" in table.out
    assert registry("event list --after", moves[0]["revision"], "-o", "json").json == []


def test_the_head_is_where_the_log_stands(registry: Run) -> None:
    before = registry("head -o json").json["revision"]
    registry("model create churn")

    assert registry("head -o json").json["revision"] > before
    assert int(registry("head -o name").out) > before


def test_the_log_verifies(registry: Run) -> None:
    ran = registry("verify-log -o json").json

    assert ran["intact"]
    assert ran["last_revision"] >= ran["first_revision"] >= 1
    assert registry("verify-log").out.startswith("intact: revisions 1 to ")
    assert registry("verify-log --from-revision", 10**9).out.startswith("intact: there is nothing")


def test_a_watch_from_the_beginning_tells_the_whole_log_one_object_a_line(registry: Run) -> None:
    registry("version create churn --create-model")
    registry("promote churn 1 --stage Production")

    ran = registry("watch --model churn --from beginning --count 3 -o json")

    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [line["changes"][0]["kind"] for line in lines] == [
        "CHANGE_KIND_MODEL_CREATED",
        "CHANGE_KIND_VERSION_CREATED",
        "CHANGE_KIND_STAGES_CHANGED",
    ]
    assert {line["type"] for line in lines} == {"transaction"}
    assert lines[2]["changes"][0]["version_state"]["revision"] == lines[2]["revision"]


def test_a_watch_goes_on_after_a_cursor(registry: Run) -> None:
    registry("version create churn --create-model")
    first = registry("watch --from beginning --model churn --count 1 -o json").json

    second = registry(
        "watch --cursor", first["cursor"], "--model", "churn", "--count", 1, "-o", "json"
    )

    assert second.json["changes"][0]["kind"] == "CHANGE_KIND_VERSION_CREATED"


def test_a_watch_from_a_snapshot_tells_the_present_state(registry: Run) -> None:
    registry("version create churn --create-model")
    registry("promote churn 1 --stage Production")
    line = ("watch", "--stage", "Production", "--from", "snapshot", "--count", 1)

    snapshot = registry(*line, "-o", "json").json
    human = registry(*line)

    assert snapshot["type"] == "snapshot"
    assert any(item.get("version", {}).get("version") == 1 for item in snapshot["items"])
    assert "churn/1 in Production" in human.out


def test_a_watch_whose_reader_leaves_ends_quietly(registry: Run, address: str) -> None:
    for number in range(3):
        registry(f"model create m{number}")

    with subprocess.Popen(
        [sys.executable, "-m", "stagewire.cli.main", "watch", "--from", "beginning", "-n", "*"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        watching.stdout.readline()
        watching.stdout.close()
        for number in range(3):
            registry(f"model create n{number}")
        code = watching.wait(30)

        assert watching.stderr.read() == ""
        assert code == 1


# Whatever runs the tests may ignore interrupts, as a shell's background jobs do, and its children
# with it; a terminal does not.
AS_FROM_A_TERMINAL = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from stagewire.cli.main import run; run()"
)


def test_an_interrupted_watch_ends_quietly_with_130(registry: Run) -> None:
    import signal

    registry("model create churn")
    with subprocess.Popen(
        [sys.executable, "-c", AS_FROM_A_TERMINAL, "watch", "--from", "beginning"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        code = watching.wait(30)

        assert (code, watching.stderr.read()) == (130, "")


def test_a_script_reports_its_deployment_and_a_later_report_wins(registry: Run) -> None:
    registry("version create churn --create-model")
    registry("promote churn 1 --stage Production")
    line = ("deployment", "report", "churn", "--stage", "Production", "--target", "eu/prod")

    failed = registry(*line, "--running", 0, "--desired", 1, "--state", "failed", "--error", "OOM")
    drifting = registry("deployment list")
    registry(*line, "--running", 1)
    status = registry("deployment status churn")
    listed = registry("deployment list --target eu/prod -o json").json

    assert failed.code == 0
    assert "drifting" in drifting.out
    assert "OOM" in drifting.out
    assert [deployment["running_version"] for deployment in listed] == [1]
    assert listed[0]["in_sync"] is True
    assert listed[0]["lag_revisions"] == 0
    assert registry("deployment status churn -o name").out == "1/1\n"
    assert "in sync" in status.out


def test_health_is_serving(registry: Run) -> None:
    assert registry("health -o json").json == {"status": "SERVING"}
    assert registry("health").out == "SERVING\n"
    assert registry("health --service no.such.Service").code == 1
