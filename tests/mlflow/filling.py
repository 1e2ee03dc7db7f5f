"""Run by MLflow's own Python: fills a registry by MLflow's own store, as its users do.

`python filling.py URL scene` makes one of everything, `python filling.py URL 10000` so many
versions.
"""

import sys

from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.tracking import MlflowClient

VERSIONS_A_MODEL = 100


def make_scene(client: MlflowClient) -> None:
    """Make what an import has to bring, what differs, and what can't be brought."""
    store = client._get_registry_client().store
    client.create_registered_model("churn", tags={"team": "crm"}, description="who leaves")
    for number in range(1, 6):
        store.create_model_version(
            "churn",
            f"s3://models/churn/{number}",
            f"{number:032x}",
            [ModelVersionTag("auc", f"0.{number}")],
            f"http://mlflow/#/run/{number}",
            f"attempt {number}",
        )
    client.transition_model_version_stage("churn", 1, "Archived")
    client.transition_model_version_stage("churn", 2, "Production")
    client.transition_model_version_stage("churn", 4, "Staging")
    client.set_registered_model_alias("churn", "champion", 2)
    client.set_registered_model_alias("churn", "challenger", 4)
    client.delete_model_version("churn", 3)
    client.delete_model_version("churn", 5)
    client.create_registered_model("пример ©", description="ε")
    store.create_model_version("пример ©", "models:/churn/2", f"{2:032x}", [], None, None)
    client.create_registered_model(" padded ")
    client.create_registered_model("empty")
    prompt = [RegisteredModelTag("mlflow.prompt.is_prompt", "true")]
    store.create_registered_model("greeting", prompt, "a prompt")
    tags = [
        ModelVersionTag("mlflow.prompt.is_prompt", "true"),
        ModelVersionTag("mlflow.prompt.text", "Hello {{name}}"),
    ]
    store.create_model_version("greeting", "prompt-template", None, tags, None, None)


def make_many(client: MlflowClient, count: int) -> None:
    """Make so many versions."""
    store = client._get_registry_client().store
    for number in range(count):
        name = f"model-{number // VERSIONS_A_MODEL}"
        if number % VERSIONS_A_MODEL == 0:
            client.create_registered_model(name, tags={"team": "crm"}, description="one of many")
        tags = [ModelVersionTag("number", str(number))]
        store.create_model_version(name, f"s3://models/{number}", f"{number:032x}", tags, None, "")
        if number % VERSIONS_A_MODEL == 1:
            client.transition_model_version_stage(name, 1, "Archived")
            client.transition_model_version_stage(name, 2, "Production")
            client.set_registered_model_alias(name, "champion", 2)


def main() -> None:
    """Fill what the command line names."""
    url, what = sys.argv[1:]
    client = MlflowClient(tracking_uri=url, registry_uri=url)
    if what == "scene":
        make_scene(client)
    else:
        make_many(client, int(what))


if __name__ == "__main__":
    main()
