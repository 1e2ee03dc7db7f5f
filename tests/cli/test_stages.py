"""Stages and the movement through them, against a real server."""

from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.fixture
def churn(registry: Run) -> Run:
    """A model with three versions."""
    for number in range(1, 4):
        registry(f"version create churn --create-model --source s3://m/{number}")
    return registry


def holder(run: Run, stage: str = "Production") -> str:
    return run("resolve churn --stage", stage, "-o", "name").out.strip()


def test_promote_says_who_entered_who_left_and_what_runs(churn: Run) -> None:
    churn("promote churn 1 --stage Production")

    said = churn("promote churn 2 --stage production --reason better -o json").json
    shown = churn("promote churn 3 --stage Production").out

    assert said["version"]["stages"] == ["Production"]
    assert [version["version"] for version in said["displaced"]] == [1]
    assert isinstance(said["revision"], int)
    assert "version 3 entered; version 2 left; runs version 3" in shown


def test_promote_warns_when_deployments_run_another_version(churn: Run) -> None:
    churn("promote churn 3 --stage Production")

    kept = churn("promote churn 1 --stage Production --displace keep")

    assert kept.code == 0
    assert kept.err.startswith("stagewire: warning: deployments of Production run version 3")
    assert kept.err.count("\n") == 1
    assert holder(churn) == "3"


def test_promoting_an_older_version_takes_effect_and_warns_of_nothing(churn: Run) -> None:
    churn("promote churn 3 --stage Production")

    ran = churn("promote churn 1 --stage Production")

    assert (ran.code, ran.err) == (0, "")
    assert holder(churn) == "1"


def test_a_dry_run_shows_and_changes_nothing(churn: Run) -> None:
    ran = churn("promote churn 1 --stage Production --dry-run")

    assert "version 1 entered" in ran.out
    assert "nothing was written" in ran.out
    assert churn("resolve churn --stage Production").err.endswith("(STAGE_EMPTY)\n")


def test_transition_to_none_leaves_every_stage(churn: Run) -> None:
    churn("promote churn 1 --stage Production")
    churn("promote churn 1 --stage Staging")

    left = churn("transition churn 1 --stage None -o json").json

    assert left["version"]["stages"] == []


def test_leave_other_stages_leaves_them(churn: Run) -> None:
    churn("promote churn 1 --stage Staging")

    moved = churn("promote churn 1 --stage Production --leave-other-stages -o json")

    assert moved.json["version"]["stages"] == ["Production"]


def test_a_batch_swaps_in_one_revision(churn: Run, tmp_path: Path) -> None:
    churn("promote churn 1 --stage Production")
    churn("promote churn 2 --stage Staging")
    moves = tmp_path / "moves.yaml"
    moves.write_text(
        "- {model: churn, version: 2, stage: Production, leave_other_stages: true}\n"
        "- {model: churn, version: 1, stage: Staging, displace: keep, leave_other_stages: true}\n"
    )

    done = churn("batch", moves, "-o", "json").json

    assert {version["version"]: version["stages"] for version in done["versions"]} == {
        1: ["Staging"],
        2: ["Production"],
    }


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("churn", "list of moves"),
        ("- churn", "move 1"),
        ("- {model: churn, version: 1, stage: Staging}\n- {colour: red}", "move 2"),
        ("- {model: churn, version: 1, stage: S, displace: maybe}", "move 1"),
        ("{", "neither YAML nor JSON"),
    ],
)
def test_a_batch_that_is_none_is_a_usage_error(
    run: Run, tmp_path: Path, text: str, named: str
) -> None:
    moves = tmp_path / "moves.yaml"
    moves.write_text(text)

    ran = run("--address 127.0.0.1:1 batch", moves)

    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert named in ran.err


def test_rollback_walks_back(churn: Run) -> None:
    for number in (1, 2, 3):
        churn("promote churn", number, "--stage", "Production")

    first = churn("rollback churn --stage Production --yes --reason errors -o json")
    second = churn("rollback churn --stage Production --yes")

    assert [version["version"] for version in first.json["restored"]] == [2]
    assert [version["version"] for version in first.json["removed"]] == [3]
    assert second.code == 0
    assert holder(churn) == "1"


@pytest.mark.parametrize(
    ("answer", "code", "left"), [("y\n", 0, "1"), ("n\n", 1, "2"), ("", 2, "2")]
)
def test_rollback_shows_and_asks(
    churn: Run, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, left: str
) -> None:
    import io

    for number in (1, 2):
        churn("promote churn", number, "--stage", "Production")
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))

    ran = churn("rollback churn --stage Production")

    assert ran.code == code
    assert "version 1 entered; version 2 left; runs version 1" in ran.err
    assert holder(churn) == left


def test_nothing_to_roll_back_is_refused_before_asking(churn: Run) -> None:
    ran = churn("rollback churn --stage Production")

    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert ran.err.endswith("(NOTHING_TO_ROLL_BACK)\n")


def test_history_says_who_held_a_stage_when(churn: Run) -> None:
    first = churn("promote churn 1 --stage Production --reason start -o json").json
    churn("promote churn 2 --stage Production")

    now = churn("stage history churn --stage Production")
    then = churn(
        *("stage", "history", "churn", "--stage", "Production"),
        *("--at-revision", first["revision"], "-o", "json"),
    ).json
    before = churn("stage history churn --at 7d -o json").json

    assert "still there" in now.out
    assert "start" in now.out
    assert [tenure["version"] for tenure in then] == [1]
    assert before == []


def test_a_version_is_taken_out_of_a_stage(churn: Run) -> None:
    churn("promote churn 1 --stage Staging")

    removed = churn("stage remove churn 1 --stage staging -o json").json
    again = churn("stage remove churn 1 --stage staging")

    assert removed["version"]["stages"] == []
    assert again.code == 0


def test_stages_are_defined_changed_listed_and_deleted(registry: Run) -> None:
    made = registry(
        *("stage", "create", "Canary", "--active", "--occupancy", "exclusive-refusing"),
        *("--displace-to", "Archived", "--position", 2, "-o", "json"),
    ).json
    changed = registry("stage update canary --inactive --displace-to '' -o json").json
    listed = registry("stage list")

    assert made["occupancy"] == "STAGE_OCCUPANCY_EXCLUSIVE_REFUSING"
    assert made["active"]
    assert not changed["active"]
    assert changed["displace_to"] == ""
    assert listed.out.splitlines()[0].split()[:4] == ["POSITION", "STAGE", "ACTIVE", "OCCUPANCY"]
    assert "Canary" in registry("stage list -o name").out.split()
    assert registry("stage delete Canary").out == "deleted stage Canary\n"
    assert registry("stage delete Canary").err.endswith("(STAGE_NOT_FOUND)\n")
