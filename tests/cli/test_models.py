"""Models, aliases and namespaces from the command line, against a real server."""

import pytest

from tests.cli.conftest import Run


def test_a_model_is_created_read_listed_and_named(registry: Run) -> None:
    made = registry("model create churn --tag domain=telco --owner risk -o json")
    listed = registry("model list --filter", "tags.domain = 'telco'", "-o", "json")
    table = registry("model list")

    assert made.json["name"] == "churn"
    assert made.json["tags"] == {"domain": "telco"}
    assert isinstance(made.json["revision"], int)
    assert [model["name"] for model in listed.json] == ["churn"]
    assert table.out.splitlines()[0].split() == ["MODEL", "OWNER", "TAGS", "UPDATED"]
    assert registry("model get churn -o name").out == "churn\n"
    assert registry("model get churn").out.startswith("model churn\n")


def test_a_list_pages_up_to_its_limit_and_says_that_there_is_more(registry: Run) -> None:
    for number in range(5):
        assert registry(f"model create m{number}").code == 0

    some = registry("model list --limit 3 -o name")
    exact = registry("model list --limit 5 -o name")
    whole = registry("model list --limit 0 -o name")

    assert some.out.split() == ["m0", "m1", "m2"]
    assert some.err == "stagewire: these are the first 3; --limit 0 lists all\n"
    assert exact.out.split() == whole.out.split() == [f"m{number}" for number in range(5)]
    assert exact.err == whole.err == ""


def test_a_model_is_updated_tagged_and_untagged(registry: Run) -> None:
    registry("model create churn --description old")

    emptied = registry("model update churn --description '' -o json")
    owned = registry("model update churn --owner growth -o json")
    tagged = registry("model tag churn a=1 b=2 -o json")
    untagged = registry("model untag churn a -o json")

    assert emptied.json["description"] == ""
    assert owned.json["owner"] == "growth"
    assert tagged.json["tags"] == {"a": "1", "b": "2"}
    assert untagged.json["tags"] == {"b": "2"}


def test_a_renamed_model_answers_reads_and_refuses_writes_through_its_old_name(
    registry: Run,
) -> None:
    registry("model create churn")

    assert registry("model rename churn churn-eu -o name").out == "churn-eu\n"
    assert registry("model get churn -o name").out == "churn-eu\n"
    refused = registry("model tag churn a=1")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.endswith("(RENAMED)\n")


def test_the_id_that_delete_prints_is_what_undelete_and_purge_take(registry: Run) -> None:
    registry("model create churn")

    deleted = registry("model delete churn -o name").out.strip()
    assert registry("model get churn").code == 1
    assert registry("model undelete", deleted, "-o", "name").out == "churn\n"
    registry("model delete churn")
    assert registry("model purge", deleted, "--reason", "GDPR", "-o", "json").json["purged"]


def test_a_dry_run_writes_nothing(registry: Run) -> None:
    assert registry("model create churn --dry-run -o json").json["name"] == "churn"
    assert registry("model list -o json").json == []


def test_a_refusal_is_one_line_with_its_reason(registry: Run) -> None:
    registry("model create churn")

    twice = registry("model create churn")
    bad = registry("model create a/b")
    stale = registry("model tag churn a=1 --expected-revision 1")

    for ran, reason in (
        (twice, "MODEL_EXISTS"),
        (bad, "INVALID_FIELD"),
        (stale, "REVISION_MISMATCH"),
    ):
        assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
        assert ran.err.startswith("stagewire: ")
        assert ran.err.endswith(f"({reason})\n")


def test_the_same_request_id_acts_once(registry: Run) -> None:
    registry("model create churn")
    line = ("version", "create", "churn", "--source", "s3://x", "--request-id", "build-17")

    first = registry(*line, "-o", "name")
    again = registry(*line, "-o", "name")

    assert first.out == again.out == "1\n"


def test_an_alias_is_set_moved_and_deleted(registry: Run) -> None:
    for _ in range(2):
        registry("version create churn --create-model")

    first = registry("alias set churn champion 1 -o json")
    refused = registry("alias set churn champion 2")
    moved = registry("alias set churn champion 2 --reassign")
    deleted = registry("alias delete churn champion -o name")

    assert first.json["aliases"] == ["champion"]
    assert refused.err.endswith("(ALIAS_EXISTS)\n")
    assert moved.err == "stagewire: 'champion' pointed at version 1 before\n"
    assert deleted.out == "2\n"


def test_a_namespace_is_created_listed_and_deleted(registry: Run) -> None:
    made = registry("namespace create ns.one --description First -o json")

    assert made.json["name"] == "ns.one"
    assert "ns.one" in registry("namespace list -o name").out.split()
    assert "First" in registry("namespace get ns.one").out
    assert registry("namespace delete ns.one").out == "deleted namespace ns.one\n"
    assert registry("namespace get ns.one").code == 1


def test_a_namespaces_quota_is_set_shown_with_its_use_and_lifted(registry: Run) -> None:
    registry("namespace create ns.two")
    registry("-n ns.two model create churn")

    first = registry("namespace update ns.two --max-models 1 --max-watches 9 -o json")
    refused = registry("-n ns.two model create other")
    second = registry("namespace update ns.two --max-watches 0 -d Ours -o json")
    shown = registry("namespace get ns.two")

    assert first.json["quota"]["max_models"] == 1
    assert refused.err.endswith("(QUOTA_EXCEEDED)\n")
    assert second.json["quota"]["max_watches"] == 0
    assert second.json["description"] == "Ours"
    assert "models 1 of 1" in shown.out
    assert registry("namespace get ns.two -o json").json["usage"] == {"models": 1, "versions": 0}
    assert registry("namespace update ns.two").code == 2


@pytest.mark.parametrize("place", [0, 2, 3])
def test_the_common_options_stand_anywhere(registry: Run, place: int) -> None:
    line = ["model", "create", "churn"]
    line[place:place] = ["-o", "name"]

    assert registry(*line).out == "churn\n"
