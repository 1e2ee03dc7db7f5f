"""Prompts: models of another kind, which clients keep in the same registry."""

from __future__ import annotations

from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from tests.mlflow.clients.apis import Api
from tests.mlflow.clients.releases import RELEASE, exists

PROMPT = {"key": "mlflow.prompt.is_prompt", "value": "true"}
CLASH = (
    "Tried to create a {} with name '{}', but the name is already taken by a {}. MLflow does not "
    "allow creating a model and a prompt with the same name."
)
#: The functions moved between releases.
prompts: Any = mlflow.genai if RELEASE >= (3, 0) else mlflow


def test_a_prompt_is_registered_and_loaded(name: str) -> None:
    first = prompts.register_prompt(name, "Who is {{name}}?", commit_message="first")
    prompts.register_prompt(name, "What is {{name}}?")

    assert int(first.version) == 1
    assert prompts.load_prompt(name, 1).template == "Who is {{name}}?"
    assert prompts.load_prompt(f"prompts:/{name}/2").template == "What is {{name}}?"


def test_a_prompt_is_loaded_by_its_alias(name: str) -> None:
    prompts.register_prompt(name, "Who?")
    prompts.register_prompt(name, "What?")
    prompts.set_prompt_alias(name, "production", 1)

    assert prompts.load_prompt(f"prompts:/{name}@production").template == "Who?"


def test_a_model_and_a_prompt_do_not_share_a_name(api: Api, name: str, other: str) -> None:
    api.model(name)
    api.model(other, tags=[PROMPT])

    def refused(taken: str, *tags: dict[str, str]) -> tuple[str, str]:
        given = {"name": taken, "tags": list(tags)}
        status, *found = api.refused("POST", "registered-models/create", given)
        assert status == 400
        return found[0], found[1]

    assert refused(name, PROMPT) == exists(CLASH.format("prompt", name, "registered model"))
    assert refused(other) == exists(CLASH.format("registered model", other, "prompt"))
    assert refused(other, PROMPT) == exists(f"Prompt (name={other}) already exists.")


def test_a_prompt_is_no_source_of_a_version(api: Api, model: str, other: str) -> None:
    api.model(other, tags=[PROMPT])
    api.version(other, source="prompt-template", tags=[PROMPT])
    given = {"name": model, "source": f"models:/{other}/1"}

    found = api.refused("POST", "model-versions/create", given)

    text = (
        f"Invalid model version source: 'models:/{other}/1'. Prompt versions cannot be used as "
        "model version sources."
    )
    assert found == (400, "INVALID_PARAMETER_VALUE", text)


@pytest.mark.parametrize("source", ["s3://b/x", "models:/x/1", "/etc/passwd"])
def test_a_prompt_has_no_files(api: Api, name: str, source: str) -> None:
    api.model(name, tags=[PROMPT])
    given = {"name": name, "source": source, "tags": [PROMPT]}

    found = api.refused("POST", "model-versions/create", given)

    text = f"Invalid prompt source: '{source}'. Prompt sources must use an MLflow placeholder."
    assert found == (400, "INVALID_PARAMETER_VALUE", text)


def test_a_prompt_is_no_model_to_a_client(client: MlflowClient, name: str) -> None:
    prompts.register_prompt(name, "Who?")

    assert list(client.search_registered_models(f"name = '{name}'")) == []
    assert (
        name in {prompt.name for prompt in client.search_prompts(f"name = '{name}'")}
        if (RELEASE >= (3, 0))
        else True
    )
