"""Each row of MLflow's API, on both databases."""

from __future__ import annotations

import pytest

from stagewire import pb
from stagewire.callers import ANONYMOUS
from tests import factories
from tests.gateway.apis import Api, absent, exists, invalid
from tests.servers import RunningServer

PROMPT = {"key": "mlflow.prompt.is_prompt", "value": "true"}


def test_a_model_is_created_and_shown(api: Api) -> None:
    made = api.model(tags=[{"key": "team", "value": "risk"}], description="who leaves")
    found = api.get("registered-models/get", name="churn")["registered_model"]

    assert made == found
    assert made["creation_timestamp"] == made["last_updated_timestamp"]
    assert {name: made[name] for name in ("name", "tags", "description")} == {
        "name": "churn",
        "tags": [{"key": "team", "value": "risk"}],
        "description": "who leaves",
    }


def test_of_two_tags_with_one_key_the_last_counts(api: Api) -> None:
    tags = [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]

    assert api.model(tags=tags)["tags"] == [{"key": "a", "value": "2"}]


def test_a_models_description_is_changed_and_an_absent_one_is_empty(api: Api) -> None:
    before = api.model(description="old")

    changed = api.patch("registered-models/update", name="churn", description="new")
    emptied = api.patch("registered-models/update", name="churn")["registered_model"]

    assert changed["registered_model"]["description"] == "new"
    assert "description" not in emptied
    assert emptied["last_updated_timestamp"] > before["last_updated_timestamp"]


def test_a_renamed_model_keeps_its_versions(api: Api) -> None:
    api.versions(1)

    renamed = api.post("registered-models/rename", name="churn", new_name="leavers")
    found = api.get("model-versions/get", name="leavers", version="1")["model_version"]

    assert renamed["registered_model"]["name"] == found["name"] == "leavers"
    assert renamed["registered_model"]["latest_versions"][0]["name"] == "leavers"


def test_an_old_name_is_followed_by_reads_alone(api: Api) -> None:
    api.versions(1)
    api.post("registered-models/rename", name="churn", new_name="leavers")

    found = api.get("registered-models/get", name="churn")["registered_model"]
    refused = api.refused("PATCH", "registered-models/update", {"name": "churn"})

    assert found["name"] == "leavers"
    assert refused == absent("Registered Model with name=churn not found")


def test_a_model_is_deleted_whatever_its_versions_are_used_for(api: Api) -> None:
    api.versions(1)
    api.move(1, "Production")
    api.post("registered-models/alias", name="churn", alias="champion", version="1")

    api.delete("registered-models/delete", name="churn")

    gone = absent("Registered Model with name=churn not found")
    assert api.refused("GET", "registered-models/get", {"name": "churn"}) == gone
    assert api.refused("DELETE", "registered-models/delete", {"name": "churn"}) == gone


def test_a_name_taken_again_goes_on_numbering(api: Api) -> None:
    api.versions(2)
    api.delete("registered-models/delete", name="churn")
    api.model()

    assert api.version()["version"] == "3"


def test_a_version_is_created_and_shown(api: Api) -> None:
    api.model()

    made = api.version(
        source="s3://models/7",
        run_id="r1",
        run_link="https://runs/r1",
        description="first",
        tags=[{"key": "a", "value": "1"}],
    )
    found = api.get("model-versions/get", name="churn", version="1")["model_version"]

    assert made == found
    assert made["creation_timestamp"] == made["last_updated_timestamp"]
    del made["creation_timestamp"], made["last_updated_timestamp"]
    assert made == {
        "name": "churn",
        "version": "1",
        "current_stage": "None",
        "source": "s3://models/7",
        "run_id": "r1",
        "run_link": "https://runs/r1",
        "description": "first",
        "status": "READY",
        "tags": [{"key": "a", "value": "1"}],
    }


def test_a_new_version_moves_its_models_time_and_a_description_does_not(api: Api) -> None:
    made = api.versions(1)[0]

    api.patch("model-versions/update", name="churn", version="1", description="x")
    model = api.get("registered-models/get", name="churn")["registered_model"]
    version = api.get("model-versions/get", name="churn", version="1")["model_version"]

    assert model["last_updated_timestamp"] == made["creation_timestamp"]
    assert version["last_updated_timestamp"] > made["creation_timestamp"]


def test_a_version_without_a_description_loses_the_one_it_had(api: Api) -> None:
    api.model()
    api.version(description="old")

    changed = api.patch("model-versions/update", name="churn", version="1")["model_version"]

    assert "description" not in changed


def test_a_transition_moves_a_version_out_of_its_stage(api: Api) -> None:
    api.versions(1)

    staged = api.move(1, "staging")
    promoted = api.move(1, "PRODUCTION")
    taken_out = api.move(1, "none")

    shown = [v["current_stage"] for v in (staged, promoted, taken_out)]
    assert shown == ["Staging", "Production", "None"]


def test_a_stage_is_shared_unless_the_present_versions_are_archived(api: Api) -> None:
    api.versions(3)

    api.move(1, "Production")
    api.move(2, "Production")
    shared = api.stages()
    api.move(3, "Production", archive_existing_versions=True)

    assert shared == {"1": "Production", "2": "Production", "3": "None"}
    assert api.stages() == {"1": "Archived", "2": "Archived", "3": "Production"}


def test_archiving_takes_a_version_out_of_every_active_stage(
    api: Api, server: RunningServer
) -> None:
    api.versions(2)
    for stage in ("Staging", "Production"):
        factories.promote(server.server.registry, 1, stage)

    api.move(2, "Production", archive_existing_versions=True)

    assert api.stages() == {"1": "Archived", "2": "Production"}


def test_an_exclusive_stage_goes_by_its_definition(api: Api, server: RunningServer) -> None:
    occupancy = pb.STAGE_OCCUPANCY_EXCLUSIVE
    factories.stage(server.server.registry, "Canary", active=True, occupancy=occupancy)
    api.versions(2)

    api.move(1, "Canary")
    api.move(2, "Canary")

    assert api.stages() == {"1": "None", "2": "Canary"}


def test_a_version_in_several_stages_shows_the_highest_active_one(
    api: Api, server: RunningServer
) -> None:
    api.versions(1)
    for stage in ("Archived", "Staging", "Production"):
        factories.promote(server.server.registry, 1, stage)
    shown = api.get("model-versions/get", name="churn", version="1")["model_version"]

    latest = api.post("registered-models/get-latest-versions", name="churn")["model_versions"]

    assert shown["current_stage"] == "Production"
    assert [v["current_stage"] for v in latest] == ["Staging", "Production", "Archived"]


def test_latest_versions_are_each_stages_highest(api: Api) -> None:
    api.versions(5)
    for number, stage in ((1, "Staging"), (3, "Staging"), (2, "Production")):
        api.move(number, stage)

    def latest(*stages: str) -> dict[str, str]:
        posted = api.post("registered-models/get-latest-versions", name="churn", stages=stages)
        got = api.get("registered-models/get-latest-versions", name="churn", stages=list(stages))
        assert got == posted
        return {v["current_stage"]: v["version"] for v in posted.get("model_versions", ())}

    assert latest() == {"None": "5", "Staging": "3", "Production": "2"}
    assert latest("none", "PRODUCTION") == {"None": "5", "Production": "2"}
    assert latest("Archived") == {}
    model = api.get("registered-models/get", name="churn")["registered_model"]
    shown = {v["current_stage"]: v["version"] for v in model["latest_versions"]}
    assert shown == latest()


def test_a_deleted_version_is_gone_and_its_number_is_not_given_again(api: Api) -> None:
    api.versions(2)
    api.move(2, "Production")
    api.post("registered-models/alias", name="churn", alias="champion", version="2")

    api.delete("model-versions/delete", name="churn", version="2")

    gone = absent("Model Version (name=churn, version=2) not found")
    for method, path in (("GET", "get"), ("GET", "get-download-uri"), ("DELETE", "delete")):
        found = api.refused(method, f"model-versions/{path}", {"name": "churn", "version": "2"})
        assert found == gone
    assert api.version()["version"] == "3"
    assert "aliases" not in api.get("registered-models/get", name="churn")["registered_model"]


def test_tags_are_set_again_and_deleted_without_moving_any_time(api: Api) -> None:
    made = api.versions(1)[0]
    where = {"registered-models": {"name": "churn"}}
    where["model-versions"] = {"name": "churn", "version": "1"}
    for path, what in where.items():
        api.post(f"{path}/set-tag", **what, key="a", value="1")
        api.post(f"{path}/set-tag", **what, key="a", value="")
        api.post(f"{path}/set-tag", **what, key="b", value="2")
        api.delete(f"{path}/delete-tag", **what, key="b")
        api.delete(f"{path}/delete-tag", **what, key="never there")

    model = api.get("registered-models/get", name="churn")["registered_model"]
    version = api.get("model-versions/get", name="churn", version="1")["model_version"]

    assert model["tags"] == version["tags"] == [{"key": "a", "value": ""}]
    moment = made["creation_timestamp"]
    assert model["last_updated_timestamp"] == version["last_updated_timestamp"] == moment


def test_an_alias_moves_and_is_deleted(api: Api) -> None:
    api.versions(2)
    for number in "12":
        api.post("registered-models/alias", name="churn", alias="champion", version=number)
    found = api.get("registered-models/alias", name="churn", alias="champion")["model_version"]
    model = api.get("registered-models/get", name="churn")["registered_model"]

    for _ in range(2):
        api.delete("registered-models/alias", name="churn", alias="champion")

    assert (found["version"], found["aliases"]) == ("2", ["champion"])
    assert model["aliases"] == [{"alias": "champion", "version": "2"}]
    gone = invalid("Registered model alias champion not found.")
    query = {"name": "churn", "alias": "champion"}
    assert api.refused("GET", "registered-models/alias", query) == gone


def test_an_alias_may_have_letters_of_every_script(api: Api) -> None:
    api.versions(1)

    api.post("registered-models/alias", name="churn", alias="größte_版", version="1")

    found = api.get("registered-models/alias", name="churn", alias="größte_版")["model_version"]
    assert found["aliases"] == ["größte_版"]


def test_the_alias_latest_is_the_newest_version_in_any_stage(api: Api) -> None:
    api.versions(2)
    api.move(2, "Archived")

    found = api.get("registered-models/alias", name="churn", alias="Latest")["model_version"]
    api.model("empty")
    query = {"name": "empty", "alias": "latest"}
    refused = api.refused("GET", "registered-models/alias", query)

    assert found["version"] == "2"
    assert refused == absent("Latest version not found for model empty.")


def test_a_copy_names_its_origin_and_loads_from_where_that_lies(api: Api) -> None:
    api.versions(1)
    api.post("registered-models/alias", name="churn", alias="champion", version="1")
    api.model("copy")

    copied = api.version("copy", source="models:/churn@champion")
    again = api.version("copy", source="models:/copy/1")
    uris = [
        api.get("model-versions/get-download-uri", name="copy", version=v["version"])
        for v in (copied, again)
    ]

    assert copied["source"] == "models:/churn/1"
    assert uris == [{"artifact_uri": "s3://models/1"}] * 2


def test_a_logged_model_is_passed_through_where_nobody_can_be_asked(api: Api) -> None:
    api.model()
    api.version(source="models:/m-123", model_id="m-123")

    found = api.get("model-versions/get-download-uri", name="churn", version="1")
    one = api.get("model-versions/get", name="churn", version="1")["model_version"]
    listed = api.get("model-versions/search")["model_versions"][0]

    assert found == {"artifact_uri": "models:/m-123"}
    assert "model_id" not in one
    assert listed["model_id"] == "m-123"


def test_a_version_shows_its_params_and_metrics(api: Api, server: RunningServer) -> None:
    api.model()
    factories.version(
        server.server.registry,
        params={"depth": "3"},
        metrics=[pb.Metric(key="auc", value=0.9), pb.Metric(key="loss", value=float("nan"))],
    )

    found = api.get("model-versions/get", name="churn", version="1")["model_version"]

    assert found["model_params"] == [{"name": "depth", "value": "3"}]
    assert {m["key"]: m["value"] for m in found["model_metrics"]} == {"auc": 0.9, "loss": "NaN"}


def test_a_model_and_a_prompt_do_not_share_a_name(api: Api) -> None:
    api.model("churn")
    api.model("ask", tags=[PROMPT])
    clash = "Tried to create a {} with name '{}', but the name is already taken by a {}. MLflow"
    clash += " does not allow creating a model and a prompt with the same name."

    def refused(name: str, *tags: dict[str, str]) -> object:
        return api.refused("POST", "registered-models/create", {"name": name, "tags": list(tags)})

    assert refused("churn") == exists("Registered Model (name=churn) already exists.")
    assert refused("ask", PROMPT) == exists("Prompt (name=ask) already exists.")
    assert refused("churn", PROMPT) == exists(clash.format("prompt", "churn", "registered model"))
    assert refused("ask") == exists(clash.format("registered model", "ask", "prompt"))


def test_prompts_are_registered_like_models(api: Api) -> None:
    api.model("ask", tags=[PROMPT])
    text = {"key": "mlflow.prompt.text", "value": "Who is {{name}}?"}

    made = api.version("ask", source="prompt-template", tags=[PROMPT, text])
    refused = api.refused(
        "POST", "model-versions/create", {"name": "ask", "source": "s3://x", "tags": [PROMPT]}
    )
    copied = api.refused(
        "POST", "model-versions/create", {"name": "ask", "source": "models:/ask/1"}
    )

    assert text in made["tags"]
    assert refused == invalid(
        "Invalid prompt source: 's3://x'. Prompt sources must use an MLflow placeholder."
    )
    assert copied == invalid(
        "Invalid model version source: 'models:/ask/1'. Prompt versions cannot be used as model "
        "version sources."
    )


@pytest.mark.parametrize("base", ["/api/2.0", "/ajax-api/2.0"])
@pytest.mark.parametrize("era", ["", "/preview"])
def test_every_base_answers_alike(one: Api, base: str, era: str) -> None:
    one.model()
    path = f"{base}{era}/mlflow/registered-models/get"

    answer = one.http.get(path, params={"name": "churn"})

    assert answer.json() == one.get("registered-models/get", name="churn")


def test_the_list_of_the_first_clients_pages_through_all_models(api: Api) -> None:
    for name in "abc":
        api.model(name)

    first = api.get("registered-models/list", max_results=2)
    second = api.get("registered-models/list", page_token=first["next_page_token"])

    names = [m["name"] for page in (first, second) for m in page["registered_models"]]
    assert names == ["a", "b", "c"]
    assert "next_page_token" not in second


def test_workspaces_are_namespaces(api: Api, server: RunningServer) -> None:
    request = pb.CreateNamespaceRequest(namespace=pb.Namespace(name="risk", description="d"))
    server.server.registry.CreateNamespace(request, ANONYMOUS)
    risk = {"X-MLFLOW-WORKSPACE": "risk"}

    made = api.send("POST", "registered-models/create", json={"name": "churn"}, headers=risk)
    there = api.send("GET", "registered-models/get", params={"name": "churn"}, headers=risk)
    nowhere = {"X-MLFLOW-WORKSPACE": "nowhere"}
    refused = api.send("GET", "registered-models/search", headers=nowhere)
    listed = api.http.get("/api/3.0/mlflow/workspaces").json()
    shown = api.http.get("/api/3.0/mlflow/workspaces/risk").json()

    assert (made.status_code, there.status_code) == (200, 200)
    assert api.refused("GET", "registered-models/get", {"name": "churn"})[0] == 404
    assert refused.status_code == 404
    assert refused.json()["message"] == "Workspace 'nowhere' not found"
    assert listed == {"workspaces": [{"name": "default"}, {"name": "risk", "description": "d"}]}
    assert shown == {"workspace": {"name": "risk", "description": "d"}}


@pytest.mark.parametrize("base", ["/api/3.0", "/ajax-api/3.0"])
def test_server_info_says_that_workspaces_work(one: Api, base: str) -> None:
    headers = {"X-MLFLOW-WORKSPACE": "nowhere"}

    found = one.http.get(f"{base}/mlflow/server-info", headers=headers)

    assert found.status_code == 200
    assert found.json()["workspaces_enabled"] is True
