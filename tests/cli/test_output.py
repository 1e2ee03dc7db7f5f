"""JSON is the contract's; tables are aligned, whole, and obey no escape sequence."""

import json

import pytest
import yaml

from stagewire import pb
from stagewire.cli import output, views
from stagewire.cli.arguments import Format
from stagewire.cli.views import Column, View


def version(number: int = 3, **fields: object) -> pb.ModelVersion:
    return pb.ModelVersion(model="churn", version=number, revision=2**40, **fields)  # type: ignore[arg-type]


def test_int64_are_numbers_enums_are_names_and_fields_are_snake_case() -> None:
    tree = output.plain(version(status=pb.MODEL_VERSION_STATUS_READY))

    assert tree["revision"] == 2**40
    assert tree["version"] == 3
    assert tree["status"] == "MODEL_VERSION_STATUS_READY"
    assert "content_digest" in tree


def test_int64_are_numbers_also_inside_lists_and_messages() -> None:
    found = version(metrics=[pb.Metric(key="loss", value=0.1, step=2**33)])

    tree = output.plain(found)

    assert tree["metrics"][0]["step"] == 2**33


def test_maps_of_numbers_and_durations_keep_their_form() -> None:
    answer = pb.GetModelResponse(aliases={"champion": 3}, revision=7)
    report = pb.ReportStatusResponse()
    report.next_report_after.FromSeconds(15)

    assert output.plain(answer)["aliases"] == {"champion": 3}
    assert output.plain(report) == {"next_report_after": "15s", "superseded": False}


def test_every_key_is_there_for_scripts_unless_a_record_is_sparse() -> None:
    assert output.plain(version())["stages"] == []
    assert "stages" not in output.plain(version(), whole=False)


def test_not_a_number_is_valid_json() -> None:
    tree = output.plain(pb.Metric(key="x", value=float("nan")))

    assert json.loads(json.dumps(tree, allow_nan=False))["value"] == "NaN"


def test_a_list_is_one_array(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_all([version(1), version(2)], views.VERSION, Format.JSON)

    assert [found["version"] for found in json.loads(capsys.readouterr().out)] == [1, 2]


def test_an_empty_list_is_an_empty_array_and_an_empty_table_a_remark(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.show_all([], views.VERSION, Format.JSON)
    output.show_all([], views.VERSION, Format.TABLE)

    out, err = capsys.readouterr()
    assert json.loads(out) == []
    assert err == "stagewire: no versions\n"


def test_yaml_says_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    output.show(version(tags={"größe": "xl"}), views.VERSION, Format.YAML)

    assert yaml.safe_load(capsys.readouterr().out) == output.plain(version(tags={"größe": "xl"}))


def test_names_are_what_scripts_pass_on(capsys: pytest.CaptureFixture[str]) -> None:
    output.show(version(), views.VERSION, Format.NAME)
    output.show(version(), views.ANY_VERSION, Format.NAME)
    output.show(pb.Model(name="churn", id="17"), views.DELETED_MODEL, Format.NAME)

    assert capsys.readouterr().out == "3\nchurn/3\n17\n"


WORDS: View[pb.Model] = View(
    plural="models",
    name=lambda model: model.name,
    columns=(
        Column("NAME", lambda model: model.name),
        Column("OWNER", lambda model: model.owner, always=False),
        Column("TEXT", lambda model: model.description, whole=False),
    ),
    details=lambda model: (("name", model.name), ("owner", model.owner)),
)


def test_a_table_in_a_pipe_is_aligned_and_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    models = [
        pb.Model(name="a", description="x" * 500),
        pb.Model(name="long-name", description="y"),
    ]

    output.show_all(models, WORDS, Format.TABLE)

    assert capsys.readouterr().out.splitlines() == [
        "NAME       TEXT",
        f"a          {'x' * 500}",
        "long-name  y",
    ]


def test_a_column_that_may_be_missing_is_left_out_when_empty(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.show_all([pb.Model(name="a", owner="o")], WORDS, Format.TABLE)

    assert "OWNER" in capsys.readouterr().out


def test_cells_are_one_line_and_hold_no_markup_and_no_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.show_all(
        [pb.Model(name="[bold]a", description="one\ntwo\x1b[2J:smile:")], WORDS, Format.TABLE
    )

    assert capsys.readouterr().out.splitlines()[1] == "[bold]a  one two�[2J:smile:"


def test_details_leave_out_what_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    output.show(pb.Model(name="a"), WORDS, Format.TABLE)

    assert capsys.readouterr().out == "name  a\n"


def test_a_found_model_is_the_model_with_what_it_holds() -> None:
    found = pb.GetModelResponse(
        model=pb.Model(name="churn", revision=5),
        stages=[pb.StageHolders(stage="Production", primary_version=3, versions=[2, 3])],
        aliases={"champion": 2},
        latest_version=4,
    )

    tree = views.FOUND_MODEL.plain(found)

    assert tree["name"] == "churn"
    assert tree["stages"][0]["primary_version"] == 3
    assert tree["aliases"] == {"champion": 2}
    assert tree["latest_version"] == 4
