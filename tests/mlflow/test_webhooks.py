"""MLflow itself judges our letters: its own code signs what it reads, and gets our signature."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from stagewire import pb
from stagewire.client import Client
from tests.mlflow.processes import mlflow_python
from tests.receivers import Receiver
from tests.servers import RunningServer
from tests.webhooks.conftest import NEAR

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.receivers import Post

pytestmark = pytest.mark.mlflow

SECRET = "geheim ünd whsec_"

#: Signs each letter anew with MLflow's own function, and reads its event with MLflow's classes.
JUDGE = """
import json, sys
from mlflow.entities.webhook import WebhookEvent
from mlflow.webhooks import constants
from mlflow.webhooks.delivery import _generate_hmac_signature
from mlflow.webhooks.types import get_payload_class_for_event

said = json.load(sys.stdin)
found = []
for letter in said["letters"]:
    headers, body = letter["headers"], letter["body"]
    signature = _generate_hmac_signature(
        said["secret"],
        headers[constants.WEBHOOK_DELIVERY_ID_HEADER.lower()],
        headers[constants.WEBHOOK_TIMESTAMP_HEADER.lower()],
        body,
    )
    content = json.loads(body)
    event = WebhookEvent(entity=content["entity"], action=content["action"])
    found.append({
        "signed": signature == headers[constants.WEBHOOK_SIGNATURE_HEADER.lower()],
        "event": str(event),
        "fields": sorted(get_payload_class_for_event(event).__annotations__),
        "given": sorted(content["data"]),
        "keys": list(content),
    })
json.dump(found, sys.stdout)
"""


def judge(posts: Sequence[Post]) -> list[Any]:
    """Have MLflow look at letters."""
    letters = [{"headers": post.headers, "body": post.body.decode()} for post in posts]
    ran = subprocess.run(
        [mlflow_python("3"), "-c", JUDGE],
        input=json.dumps({"secret": SECRET, "letters": letters}),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stderr
    found: list[Any] = json.loads(ran.stdout)
    return found


def test_mlflow_accepts_each_of_its_events_from_us(database_url: str, tmp_path: Path) -> None:
    from cryptography.fernet import Fernet

    keys = tmp_path / "keys"
    keys.write_bytes(Fernet.generate_key())
    with (
        Receiver() as receiver,
        RunningServer(database_url, **NEAR, secrets_key_file=str(keys)) as server,
        Client(server.address) as client,
    ):
        wanted = pb.Webhook(name="ci", url=receiver.url, events=["*"], secret=SECRET)
        client.webhooks.CreateWebhook(pb.CreateWebhookRequest(webhook=wanted))
        prompt = {"mlflow.prompt.is_prompt": "true", "mlflow.prompt.text": "Hello {{name}}!"}
        for name, tags in (("größe", {}), ("greeting", prompt)):
            play(client, name, tags)
        posts = receiver.expect(14)

    known = [p for p in posts if not p.event.startswith("registered_model_tag")]
    judged = judge(known)

    assert all(j["signed"] for j in judged)
    assert all(j["given"] == j["fields"] for j in judged)
    assert {tuple(j["keys"]) for j in judged} == {("entity", "action", "timestamp", "data")}
    assert [j["event"] for j in judged] == [
        "registered_model.created",
        "model_version.created",
        "model_version_tag.set",
        "model_version_tag.deleted",
        "model_version_alias.created",
        "model_version_alias.deleted",
        "prompt.created",
        "prompt_tag.set",
        "prompt_tag.deleted",
        "prompt_version.created",
        "prompt_version_tag.set",
        "prompt_version_tag.deleted",
        "prompt_alias.created",
        "prompt_alias.deleted",
    ]


def play(client: Client, name: str, tags: dict[str, str]) -> None:
    """Do to a model all that MLflow has events for."""
    registry = client.registry
    model = pb.Model(name=name, tags=tags)
    registry.CreateModel(pb.CreateModelRequest(model=model))
    if tags:
        registry.SetModelTags(pb.SetModelTagsRequest(model=name, tags={"a": "1"}))
        registry.DeleteModelTags(pb.DeleteModelTagsRequest(model=name, keys=["a"]))
    version = pb.ModelVersion(source="s3://m/1", tags=tags)
    registry.CreateModelVersion(pb.CreateModelVersionRequest(model=name, version=version))
    which: dict[str, Any] = {"model": name, "version": 1}
    registry.SetModelVersionTags(pb.SetModelVersionTagsRequest(**which, tags={"a": "ß"}))
    registry.DeleteModelVersionTags(pb.DeleteModelVersionTagsRequest(**which, keys=["a"]))
    registry.SetAlias(pb.SetAliasRequest(**which, alias="champion"))
    registry.DeleteAlias(pb.DeleteAliasRequest(model=name, alias="champion"))
