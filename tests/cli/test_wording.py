"""Times, numbers and changes in words."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from stagewire import pb
from stagewire.cli import changes, wording


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (7200, "2 h"),
        (86400, "1 d"),
        (59 * 86400, "59 d"),
        (100 * 86400, "3 mo"),
        (1000 * 86400, "2 y"),
        (-5, "0 s"),
    ],
)
def test_a_span_is_said_in_one_unit(seconds: float, said: str) -> None:
    assert wording.elapsed(timedelta(seconds=seconds)) == said


def test_an_unknown_time_is_silence() -> None:
    assert wording.ago(Timestamp()) == ""


def test_a_time_is_said_as_an_age() -> None:
    time = Timestamp()
    time.FromDatetime(datetime(2026, 5, 1, 12, tzinfo=UTC))

    assert wording.ago(time, now=datetime(2026, 5, 1, 15, tzinfo=UTC)) == "3 h ago"


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.913456, "0.9135"), (12345678, "1.235e+07"), (3, "3"), (float("nan"), "nan")],
)
def test_numbers_have_four_significant_digits(value: float, said: str) -> None:
    assert wording.number(value) == said


def test_an_enum_from_a_newer_server_stays_a_number() -> None:
    assert wording.enum_name(pb.DeploymentState, 99) == "99"
    assert wording.enum_name(pb.DeploymentState, pb.DEPLOYMENT_STATE_SERVING) == "SERVING"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (pb.Change(kind=pb.CHANGE_KIND_MODEL_CREATED, model="churn"), "churn: created"),
        (
            pb.Change(kind=pb.CHANGE_KIND_MODEL_RENAMED, model="b", previous_model="a"),
            "b: renamed from a",
        ),
        (
            pb.Change(
                kind=pb.CHANGE_KIND_STAGES_CHANGED,
                model="churn",
                version=3,
                entered_stages=["Production"],
                left_stages=["Staging"],
                primaries=[
                    pb.StagePrimary(stage="Production", version=3),
                    pb.StagePrimary(stage="Staging"),
                ],
            ),
            (
                "churn/3: entered Production; left Staging; Production runs version 3;"
                " Staging runs nothing"
            ),
        ),
        (
            pb.Change(
                delivery=pb.CHANGE_DELIVERY_LEFT, model="churn", version=3, left_stages=["Staging"]
            ),
            "churn/3 left the filter (it held Staging)",
        ),
        (pb.Change(kind=pb.CHANGE_KIND_STAGE_DELETED, stage="Canary"), "stage Canary: deleted"),
        (
            pb.Change(kind=pb.CHANGE_KIND_NAMESPACE_CREATED, namespace="risk"),
            "namespace risk: created",
        ),
        (
            pb.Change(
                kind=pb.CHANGE_KIND_ALIASES_CHANGED,
                model="churn",
                version=3,
                version_state=pb.ModelVersion(aliases=["champion"]),
            ),
            "churn/3: aliases now champion",
        ),
        (pb.Change(model="churn"), "churn: changed"),
    ],
)
def test_a_change_is_said_in_one_line(change: pb.Change, said: str) -> None:
    assert changes.describe(change) == said


@pytest.mark.parametrize("kind", pb.ChangeKind.values())
def test_every_kind_of_change_has_words(kind: pb.ChangeKind.ValueType) -> None:
    assert changes.describe(pb.Change(kind=kind, model="churn", version=1)).startswith("churn/1: ")
