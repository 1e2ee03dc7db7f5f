"""Versions, metrics and what is resolved to them, against a real server."""

from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Run


def test_a_version_is_registered_with_all_that_is_known_of_it(
    registry: Run, tmp_path: Path
) -> None:
    schema = tmp_path / "signature.json"
    schema.write_text('{"inputs": []}')
    registry("version create base --create-model")

    made = registry(
        *("version", "create", "churn", "--create-model", "--source", "s3://m/1"),
        *("--run-id", "8f2c", "--run-link", "https://runs/8f2c", "--experiment", "may"),
        *("--git-commit", "1f0c", "--git-repository", "https://git/churn"),
        *("--tag", "team=risk", "--param", "depth=8", "--flavor", "sklearn"),
        *("--metric", "auc=0.913", "--metric", "loss=nan", "--signature", schema),
        *("--dataset", "train=sha256:1", "--evaluation-dataset", "holdout"),
        *("--parent", "base/1:fine-tuned", "--description", "first", "-o", "json"),
    ).json

    assert made["version"] == 1
    assert made["status"] == "MODEL_VERSION_STATUS_READY"
    assert made["params"] == {"depth": "8"}
    assert made["signature"] == '{"inputs": []}'
    lineage = made["lineage"]
    assert lineage["run_id"] == "8f2c"
    assert [dataset["use"] for dataset in lineage["datasets"]] == [
        "DATASET_USE_TRAINING",
        "DATASET_USE_EVALUATION",
    ]
    assert lineage["parents"][0]["derivation"] == "DERIVATION_FINE_TUNED"
    shown = registry("version get churn 1 --metrics").out
    for part in ("8f2c", "train=sha256:1", "base/1 (fine_tuned)", "auc=0.913", "loss=nan"):
        assert part in shown


def test_without_create_model_an_unknown_model_is_refused(registry: Run) -> None:
    refused = registry("version create ghost --source s3://x")

    assert (refused.code, refused.out) == (1, "")
    assert refused.err.endswith("(MODEL_NOT_FOUND)\n")


def test_numbers_for_scripts_and_names_across_models(registry: Run) -> None:
    for model in ("a", "a", "b"):
        registry("version create", model, "--create-model")

    assert registry("version list --model a -o name").out.split() == ["2", "1"]
    assert set(registry("version list -o name").out.split()) == {"a/1", "a/2", "b/1"}


def test_versions_are_found_by_metric_and_ordered_by_it(registry: Run) -> None:
    for value in (0.8, 0.95, 0.91):
        registry(f"version create churn --create-model --metric auc={value}")

    found = registry(
        *("version", "list", "--model", "churn", "--filter", "metrics.auc >= 0.9"),
        *("--order-by", "metrics.auc desc", "--metrics"),
    )

    header, *rows = found.out.splitlines()
    assert header.split()[:4] == ["VERSION", "STAGES", "STATUS", "METRICS"]
    assert [row.split()[3] for row in rows] == ["auc=0.95", "auc=0.91"]


def test_a_version_is_described_tagged_deleted_and_purged(registry: Run) -> None:
    registry("version create churn --create-model --status pending")

    failed = registry(
        *("version", "update", "churn", 1, "--status", "failed"),
        *("--status-message", "upload broke off", "-o", "json"),
    )
    tagged = registry("version tag churn 1 a=1 -o json")
    untagged = registry("version untag churn 1 a -o json")
    deleted = registry("version delete churn 1 -o json")
    undeleted = registry("version undelete churn 1 -o json")
    registry("version delete churn 1")
    purged = registry("version purge churn 1 --reason GDPR -o json")

    assert failed.json["status"] == "MODEL_VERSION_STATUS_FAILED_REGISTRATION"
    assert tagged.json["tags"] == {"a": "1"}
    assert untagged.json["tags"] == {}
    assert deleted.json["deleted"]
    assert not undeleted.json["deleted"]
    assert purged.json["purged"]


def test_a_copy_has_the_original_as_its_parent(registry: Run) -> None:
    registry("version create churn --create-model --source s3://x")
    registry("model create churn-prod")

    copied = registry("version copy churn 1 churn-prod -o json").json

    assert (copied["model"], copied["version"]) == ("churn-prod", 1)
    assert copied["lineage"]["parents"][0]["model"] == "churn"


@pytest.mark.parametrize(
    ("selector", "number"),
    [
        (("churn",), 3),
        (("churn", "--version", "2"), 2),
        (("churn", "--stage", "production"), 1),
        (("churn", "--alias", "champion"), 2),
        (("--uri", "models:/churn@champion"), 2),
        (("--uri", "models:/churn/Production"), 1),
    ],
)
def test_resolve_answers_with_the_version_meant(
    registry: Run, selector: tuple[str, ...], number: int
) -> None:
    for _ in range(3):
        registry("version create churn --create-model --source s3://x")
    registry("promote churn 1 --stage Production")
    registry("alias set churn champion 2")

    found = registry("resolve", *selector, "-o", "json").json

    assert found["version"] == number


def test_yaml_is_the_same_resource(registry: Run) -> None:
    registry("version create churn --create-model")

    as_json = registry("version get churn 1 -o json").json
    as_yaml = yaml.safe_load(registry("version get churn 1 -o yaml").out)

    assert as_yaml == as_json


def test_metrics_are_logged_once_and_listed_over_steps_and_versions(registry: Run) -> None:
    for _ in range(2):
        registry("version create churn --create-model")
    point = ("metric", "log", "churn", 1, "loss=0.5", "--step", 1, "--time", "2026-05-01T12:00:00Z")

    assert registry(*point, "-o", "json").json == {"logged": 1}
    assert registry(*point, "-o", "json").json == {"logged": 0}
    registry("metric log churn 1 loss=0.25 --step 2 --dataset holdout")
    registry("metric log churn 2 loss=inf")

    steps = registry("metric list churn --version 1 --key loss -o json").json
    assert sorted(metric["step"] for metric in steps) == [1, 2]
    over = registry("metric list churn --key loss")
    assert {"KEY", "VALUE", "STEP", "VERSION"} <= set(over.out.split())
    assert "inf" in over.out.split()
