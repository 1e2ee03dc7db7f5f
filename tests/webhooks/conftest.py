"""A server whose webhooks may lead to this host, and a receiver there."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.fernet import Fernet

from stagewire import pb
from stagewire.client import Client
from tests.receivers import Receiver
from tests.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Near and impatient: what takes minutes in service takes milliseconds here.
NEAR: dict[str, Any] = {
    "webhook_allowed_schemes": ["http", "https"],
    "webhook_allow_private_addresses": True,
    "webhook_retry_seconds": 0.05,
    "webhook_retry_most_seconds": 0.2,
    "webhook_timeout_seconds": 1.0,
    "webhook_lease_seconds": 3.0,
    "webhook_poll_seconds": 0.2,
}


@pytest.fixture
def serve(database_url: str, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Start servers on one database, with settings of their own, and give clients of them."""
    keys = tmp_path / "webhooks.keys"
    keys.write_bytes(Fernet.generate_key())
    common = {**NEAR, "secrets_key_file": str(keys)}
    with contextlib.ExitStack() as stack:

        def start(**settings: Any) -> Client:
            server = stack.enter_context(RunningServer(database_url, **{**common, **settings}))
            return stack.enter_context(Client(server.address))

        yield start


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Listen for posts."""
    with Receiver() as listening:
        yield listening


class Hooked:
    """A client, and what tests do with it again and again."""

    def __init__(self, client: Client, receiver: Receiver) -> None:
        self.client = client
        self.receiver = receiver

    def hook(self, *events: str, **fields: Any) -> str:
        """Create a webhook and answer its id."""
        wanted = pb.Webhook(
            **{"name": "ci", "url": self.receiver.url, "events": events or ["*"], **fields}
        )
        request = pb.CreateWebhookRequest(webhook=wanted)
        return self.client.webhooks.CreateWebhook(request).webhook.id

    def get(self, id_: str) -> pb.Webhook:
        """Read a webhook."""
        return self.client.webhooks.GetWebhook(pb.GetWebhookRequest(id=id_)).webhook

    def deliveries(self, id_: str, *statuses: pb.DeliveryStatus.ValueType) -> list[pb.Delivery]:
        """Read what became of a webhook's events."""
        request = pb.ListDeliveriesRequest(id=id_, statuses=statuses)
        return list(self.client.webhooks.ListDeliveries(request).deliveries)

    def update(self, id_: str, **fields: Any) -> None:
        """Change a webhook."""
        request = pb.UpdateWebhookRequest(
            id=id_, update=pb.WebhookUpdate(**fields), resume=pb.WEBHOOK_RESUME_CURSOR
        )
        request.update_mask.paths.extend(fields)
        self.client.webhooks.UpdateWebhook(request)

    def models(self, *names: str) -> None:
        """Register models."""
        for name in names:
            self.client.registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name=name)))

    def told(self) -> list[str]:
        """Name the models that the receiver took events of, in order."""
        return [post.json["data"]["name"] for post in self.receiver.taken]


@pytest.fixture
def hooked(serve: Callable[..., Client], receiver: Receiver) -> Hooked:
    """Give a client of a server, and a receiver, on each database."""
    return Hooked(serve(), receiver)
