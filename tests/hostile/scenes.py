"""What is in a registry before it is attacked: enough that most hostile requests find something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stagewire import pb
from stagewire.client import Client

if TYPE_CHECKING:
    from tests.hostile.targets import Target


def lay_out(target: Target) -> dict[str, str]:
    """Register, promote, alias and hook, and give the ids that the registry gave."""
    with Client(target.address, token=target.token) as client:
        model = client.registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name="churn")))
        for name in ("copied", "spare"):
            client.registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name=name)))
        for _ in range(2):
            source = pb.ModelVersion(source="s3://models/churn/1")
            client.registry.CreateModelVersion(
                pb.CreateModelVersionRequest(model="churn", version=source)
            )
        client.promote("churn", 1, "Production")
        client.registry.SetAlias(pb.SetAliasRequest(model="churn", alias="champion", version=1))
        hook = pb.Webhook(name="hook", url="https://127.0.0.1:1/hook", events=["prompt.created"])
        hook = client.webhooks.CreateWebhook(pb.CreateWebhookRequest(webhook=hook)).webhook
    return {"model_id": model.model.id, "id": hook.id}
