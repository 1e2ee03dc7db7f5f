"""The shortest way through every floor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stagewire import pb

if TYPE_CHECKING:
    from stagewire.client import Client


def test_a_model_created_over_the_wire_can_be_read_back(client: Client) -> None:
    client.registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name="iris")))

    found = client.registry.GetModel(pb.GetModelRequest(model="iris")).model

    assert (found.name, found.revision) == ("iris", 2)
